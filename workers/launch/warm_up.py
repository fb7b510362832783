"""Warm-up of the launcher: the whole life of a task, a few times, before the first fork.

Python 3.11 rewrites cold bytecode while the bytecode runs, and fills caches on first use. After the
fork, each write would cost every worker a private page; before the fork, the pages stay shared.
Measured: a fifth of a worker's memory. The warm-up is also a self-test: a launcher that listens can
run workers.
"""

from __future__ import annotations

import os
import struct

from proto import frames
from proto.errors import Code, DriverError
from workers import c_modules, control, procfs, protocol
from workers.launch.child import serve
from workers.loop import READ
from workers.shim import ttrpc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.frames import Frame
    from workers.task_worker import Worker

DIRECTORY = "rehearsal"
ROUNDS = 12
"""Python specialises a function's bytecode after its eighth run."""

_LOG, _SHIM = "log.stdout", "shim.sock"
_LINE = b"rehearsed\n"
_RESPONSE_HEADER = struct.Struct(">IIBB")
_WAIT_STREAM, _STATE_STREAM, _RESPONSE = 1, 3, 2
_RUNNING = 2
_LATE_S = 10.0
_NO_DESCRIPTORS = (1 << 20, 1)
"""A range without descriptors; an end of 0 would mean all descriptors."""


def run(state_dir: str, rounds: int = ROUNDS, watched: Callable[[], None] | None = None) -> None:
    """Runs the life of a task `rounds` times, in a directory below the driver's state directory.

    Args:
        state_dir: the driver's state directory.
        rounds: number of lives for each type of log.
        watched: called when a worker watches a task, before the task's first log line.

    Raises:
        DriverError: workers do not work on this machine.
        OSError: the directory cannot be created.
    """
    path = f"{state_dir}/{DIRECTORY}"
    _clear(path)
    os.mkdir(path, 0o700)  # noqa: PTH102 - pathlib is not in the import set
    try:
        os.mkfifo(f"{path}/{protocol.STDOUT_FIFO}", 0o600)
        for _ in range(rounds):
            _Life(path, "", watched).run()
            _Life(path, protocol.FILES, watched).run()
    finally:
        _clear(path)


class _Life:
    """A worker with a plugin and a shim, all on the worker's loop.

    Args:
        path: the task's state directory.
        log_type: see `WorkerSpec`.
        watched: see `run`.
    """

    def __init__(self, path: str, log_type: str, watched: Callable[[], None] | None) -> None:
        self._path = path
        self._log_type = log_type
        self._watched = watched
        self._worker: Worker | None = None
        self._plugin, self._theirs = c_modules.socketpair()
        self._decoder = frames.Decoder()
        self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._shims = control.listen(self._directory, _SHIM)
        self._shim: c_modules.socket | None = None
        self._ended = self._late = False
        # Both ends of the task's log, as the shim holds both, and the reader's end.
        fifo = f"{path}/{protocol.STDOUT_FIFO}"
        self._log = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Runs the life from the fork to the end."""
        spec = protocol.WorkerSpec(
            name=DIRECTORY,
            dir=self._path,
            stdout=f"{self._path}/{_LOG if self._log_type else protocol.STDOUT_FIFO}",
            log_patience_ms=0,
            log_type=self._log_type,
        )
        fork: Frame = {"op": protocol.FORK, **protocol.STATED, "spec": spec.to_wire()}
        self._plugin.sendall(frames.encode(fork))
        try:
            serve(self._theirs, lambda _: {}, _NO_DESCRIPTORS, self._begin)
            if self._worker is None:
                self._theirs.close()
                self._on_worker(READ)
        finally:
            self._close()
        if not self._ended:
            late = f"the warm-up took more than {_LATE_S:g} s"
            raise DriverError(
                "workers do not work on this machine",
                details=late if self._late else "the warm-up did not reach the end of the task",
                resolution="report the failure with the launcher's log",
                code=Code.INTERNAL,
            )

    def _begin(self, worker: Worker) -> None:
        self._worker = worker
        procfs.set_name(procfs.LAUNCHER)
        worker.loop.watch(self._plugin.fileno(), READ, self._on_worker)
        worker.loop.watch(self._shims.fileno(), READ, self._on_connect)
        worker.loop.later(_LATE_S, self._give_up)

    def _on_worker(self, _: int) -> None:
        for frame in self._decoder.feed(self._plugin.recv(65536)):
            self._answer(frame)

    def _answer(self, frame: Frame) -> None:
        match frame.get("event") or frame.get("op") or frame.get("re"):
            case protocol.READY:
                self._ask(protocol.HELLO)
            case 1:
                self._ask(
                    protocol.WATCH,
                    address=f"unix://{self._path}/{_SHIM}",
                    api=2,
                    namespace=DIRECTORY,
                    container_id=DIRECTORY,
                )
            case 2:
                if self._watched is not None:
                    self._watched()
                os.write(self._log, _LINE)
                self._ask(protocol.STATS, interval_ms=60_000)
            case protocol.STATS:
                if not self._log_type:
                    os.read(self._log, len(_LINE))
                os.close(self._log)
                self._respond(_WAIT_STREAM, ttrpc.message({1: 1, 2: ttrpc.message({1: 1})}))
            case protocol.FAILED:
                error = frame["error"]
                raise DriverError.from_wire(error)
            case protocol.DRAINED:
                self._ended = True
                self._ask(protocol.END, **{protocol.RELEASE_READERS: True})

    def _ask(self, op: str, **fields: object) -> None:
        numbers = {protocol.HELLO: 1, protocol.WATCH: 2, protocol.STATS: 3, protocol.END: 4}
        self._plugin.sendall(frames.encode({"id": numbers[op], "op": op, **fields}))

    def _on_connect(self, _: int) -> None:
        self._shim = control.accept(self._shims)
        if self._shim is not None and self._worker is not None:
            self._worker.loop.watch(self._shim.fileno(), READ, self._on_request)

    def _on_request(self, _: int) -> None:
        """Answers State, but not Wait, which comes in the same read."""
        if self._shim is not None and self._shim.recv(65536):
            self._respond(_STATE_STREAM, ttrpc.message({3: os.getpid(), 4: _RUNNING}))
        elif self._shim is not None and self._worker is not None:
            self._worker.loop.forget(self._shim.fileno())

    def _respond(self, stream: int, payload: bytes) -> None:
        data = ttrpc.message({2: payload})
        if self._shim is not None:
            header = _RESPONSE_HEADER.pack(len(data), stream, _RESPONSE, 0)
            self._shim.sendall(header + data)

    def _give_up(self) -> None:
        self._late = True
        if self._worker is not None:
            self._worker.loop.stop()

    def _close(self) -> None:
        if self._worker is not None:
            self._worker.loop.close()
            self._worker.close()
        for sock in (self._plugin, self._theirs, self._shims, self._shim):
            if sock is not None:
                sock.close()
        os.close(self._directory)
        names = (protocol.EXIT_RECORD, protocol.WORKER_LOCK, _SHIM, f"{_LOG}.0")
        for name in names:
            _remove(f"{self._path}/{name}")


def _clear(path: str) -> None:
    """Removes the directory, also after a launcher that was killed."""
    if not os.path.isdir(path):  # noqa: PTH112
        return
    for name in os.listdir(path):  # noqa: PTH208
        _remove(f"{path}/{name}")
    os.rmdir(path)  # noqa: PTH106


def _remove(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return
