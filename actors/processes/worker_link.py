"""Control connection of the plugin to a task's worker.

The worker answers requests in any order. Events before the first `listen` are kept: an exit between
the task's start and the actor's `listen` is not lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

from proto import frames
from proto.errors import Code, DriverError
from workers import private_directory, protocol

REPEATED_DEATHS_ADVICE = (
    "If workers die repeatedly, see dmesg: the kernel may kill workers for lack of memory"
    " (MemoryMax of the launcher's unit)"
)
REQUEST_TIMEOUT_S = 10.0
_CHUNK_BYTES = 65536
_UCRED = struct.Struct("3i")
# An event loop refers to its tasks weakly. A link without an owner would be collected together with
# its pump, and its socket would stay open.
_pumps: set[asyncio.Task[None]] = set()


class WorkerLink:
    """A connection to a worker. Belongs to the event loop.

    `connect` or `LauncherLink.fork` creates the connection.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = frames.Decoder()
        self._pending: dict[int, asyncio.Future[frames.Frame]] = {}
        self._next_id = 0
        self._backlog: list[frames.Frame] = []
        self._listener: Callable[[frames.Frame | None], None] | None = None
        self.logs: dict[str, str] = {}
        """Path of each log FIFO through the worker's descriptor: a swapped FIFO has no effect."""
        self.relays: list[str] = []
        """Such paths of the FIFOs that the worker relays; empty for an older release."""
        self.health: str | None = None
        """The task's health, "" without a check; None for a release before 1.4.0."""
        self.closed = False
        self._pump = asyncio.get_running_loop().create_task(self._read())
        _pumps.add(self._pump)
        self._pump.add_done_callback(self._end)

    async def request(
        self, op: str, timeout_s: float = REQUEST_TIMEOUT_S, **fields: object
    ) -> frames.Frame:
        """Sends a request, and returns the worker's answer.

        Args:
            op: name of the request.
            timeout_s: seconds until the request fails.
            fields: fields of the request.

        Raises:
            DriverError: the worker's error; UNAVAILABLE if the worker has ended; TIMEOUT.
        """
        if self.closed:
            raise _gone(op)
        self._next_id += 1
        number = self._next_id
        future: asyncio.Future[frames.Frame] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        try:
            self._writer.write(frames.encode({"id": number, "op": op, **fields}))
            answer = await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            raise DriverError(
                f"the task's worker did not answer {op!r} within {timeout_s:g} s",
                recoverable=True,
                code=Code.TIMEOUT,
            ) from None
        finally:
            self._pending.pop(number, None)
        if answer.get("ok") is not True:
            raise DriverError.from_wire(answer.get("error"))
        return answer

    def ready(self, frame: frames.Frame) -> None:
        """Stores the facts in a `ready` event or in an answer to `hello`."""
        logs = frame.get("logs")
        self.logs = dict(logs) if isinstance(logs, dict) else {}
        relays = frame.get("relays")
        self.relays = list(relays) if isinstance(relays, list) else []
        health = frame.get(protocol.HEALTH)
        self.health = health if isinstance(health, str) else None

    def log_path(self, path: str) -> str:
        """Returns the path by which the shim opens a log FIFO: through the worker's descriptor.

        Another task of the group may have replaced the file at Nomad's path since.
        """
        return self.logs.get(path, path)

    def listen(self, listener: Callable[[frames.Frame | None], None]) -> None:
        """Sends all events to `listener`, first the kept events; None at the end of the link."""
        self._listener = listener
        backlog, self._backlog = self._backlog, []
        for frame in backlog:
            listener(frame)
        if self.closed:
            listener(None)

    def hold(self) -> None:
        """Keeps later events until the next `listen`."""
        self._listener = None

    def drop(self) -> None:
        """Closes the connection without waiting. The worker continues."""
        self.closed = True
        self._pump.cancel()
        self._writer.close()

    async def close(self) -> None:
        """Closes the connection. The worker continues."""
        self.drop()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await self._writer.wait_closed()

    @contextlib.contextmanager
    def dropped_on_failure(self) -> Generator[None, None, None]:
        """Closes the connection if the block fails or is cancelled: the link has no owner yet."""
        try:
            yield
        except BaseException:
            self.drop()
            raise

    async def _read(self) -> None:
        with contextlib.suppress(OSError, DriverError):  # an invalid frame counts as a loss
            while data := await self._reader.read(_CHUNK_BYTES):
                for frame in self._decoder.feed(data):
                    self._take(frame)

    def _take(self, frame: frames.Frame) -> None:
        number = frame.get("re")
        if frame.get("event") == protocol.FAILED and self._pending:
            self._refused(frame)
        elif isinstance(number, int):
            future = self._pending.get(number)
            if future is not None and not future.done():
                future.set_result(frame)
        elif self._listener is not None:
            self._listener(frame)
        else:
            self._backlog.append(frame)

    def _refused(self, frame: frames.Frame) -> None:
        """Fails all requests with the reason why the worker refuses the connection."""
        error = frame.get("error")
        for future in self._pending.values():
            if not future.done():
                future.set_exception(DriverError.from_wire(error))

    def _end(self, pump: asyncio.Task[None]) -> None:
        """Closes the connection after the end of the reading task.

        The listener receives None for a lost worker, but not after a local `drop`.
        """
        _pumps.discard(pump)
        self.closed = True
        self._writer.close()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(_gone("the request"))
        if self._listener is not None and not pump.cancelled():
            self._listener(None)


def _gone(op: str) -> DriverError:
    return DriverError(
        f"the task's worker went away before it answered {op}",
        resolution=f"the driver starts a new worker; try again. {REPEATED_DEATHS_ADVICE}",
        recoverable=True,
        code=Code.UNAVAILABLE,
    )


async def connect_unix(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connects to a unix socket in a directory of any length.

    Args:
        path: path of the socket.

    Raises:
        OSError: no process listens on the socket.
        DriverError: code DENIED; another user listens on the socket.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            sock.connect(frames.socket_path(directory, path.name))
            _check_listener(sock, path)
            return await asyncio.open_unix_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
    finally:
        os.close(directory)


def _check_listener(sock: socket.socket, path: Path) -> None:
    """Checks the user of the listening process: root, or the user of this process."""
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if not private_directory.trusts(uid):
        raise DriverError(
            f"user {uid} listens at {path}, a socket of the driver",
            resolution="stop that user's process, or set state_dir to a directory of root only",
            code=Code.DENIED,
        )


async def connect(directory: Path) -> WorkerLink:
    """Connects to a task's worker.

    Args:
        directory: state directory of the task.

    Raises:
        OSError: the task has no worker.
        DriverError: code DENIED; another user listens on the socket.
    """
    reader, writer = await connect_unix(directory / protocol.CONTROL_SOCKET)
    return WorkerLink(reader, writer)


async def samples(directory: Path, interval_s: float) -> AsyncGenerator[frames.Frame, None]:
    """Yields samples of the task's cgroup until worker or task ends; the first sample at once.

    Each stream has its own connection and no asyncio task: a node may have fifty streams.

    Args:
        directory: state directory of the task.
        interval_s: seconds between two samples.

    Raises:
        OSError: the task has no worker.
        DriverError: the worker refuses, or sends an invalid frame.
    """
    reader, writer = await connect_unix(directory / protocol.CONTROL_SOCKET)
    decoder = frames.Decoder()
    interval_ms = min(max(1, round(interval_s * 1000)), protocol.MAX_INTERVAL_MS)
    try:
        writer.write(frames.encode({"id": 1, "op": protocol.STATS, "interval_ms": interval_ms}))
        while data := await reader.read(_CHUNK_BYTES):
            for frame in decoder.feed(data):
                match frame.get("event"):
                    case protocol.STATS:
                        yield frame
                    case protocol.EXIT:
                        return
                    case _ if frame.get("ok") is False:
                        raise DriverError.from_wire(frame.get("error"))
    finally:
        writer.close()


async def check_alive(link: WorkerLink, failure: DriverError) -> None:
    """Checks the worker with a request.

    Raises:
        DriverError: the worker has died; a new start may not meet this failure.
    """
    try:
        await link.request(protocol.HELLO)
    except DriverError as lost:
        raise DriverError(
            "the task's worker died during the start",
            details=str(failure),
            resolution=f"start the task again. {REPEATED_DEATHS_ADVICE}",
            recoverable=True,
            code=Code.UNAVAILABLE,
        ) from lost
