"""The plugin's end of one control connection to a task's worker.

Requests are answered in any order; events that come before somebody listens are kept, so that an
exit between the start of a task and its actor's first look is not lost.
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

WHERE_THAT_REPEATS = (
    "Where that repeats see dmesg: the kernel may kill them for want of memory (MemoryMax of the"
    " launcher's unit)"
)
REQUEST_TIMEOUT_S = 10.0
_CHUNK_BYTES = 65536
_UCRED = struct.Struct("3i")
# An event loop refers to its tasks weakly. A link without an owner would be collected together with
# its pump, and its socket would stay open.
_pumps: set[asyncio.Task[None]] = set()


class WorkerLink:
    """One connection. Belongs to the event loop; made by `connect` or by the launcher's link."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = frames.Decoder()
        self._pending: dict[int, asyncio.Future[frames.Frame]] = {}
        self._next_id = 0
        self._backlog: list[frames.Frame] = []
        self._listener: Callable[[frames.Frame | None], None] | None = None
        self.logs: dict[str, str] = {}
        """For each log FIFO a path that no swap of the FIFO leads elsewhere."""
        self.relays: list[str] = []
        """Likewise for each FIFO that it carries on; an older release does not know how."""
        self.closed = False
        self._pump = asyncio.get_running_loop().create_task(self._read())
        _pumps.add(self._pump)
        self._pump.add_done_callback(self._end)

    async def request(
        self, op: str, timeout_s: float = REQUEST_TIMEOUT_S, **fields: object
    ) -> frames.Frame:
        """Asks the worker and returns its answer.

        Raises:
            DriverError: the worker's own, or UNAVAILABLE or TIMEOUT when it is gone or silent.
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
            error = answer.get("error")
            raise DriverError.from_wire(error)
        return answer

    def ready(self, frame: frames.Frame) -> None:
        """Takes what the worker says of itself, just forked or asked by `hello`."""
        logs = frame.get("logs")
        self.logs = dict(logs) if isinstance(logs, dict) else {}
        relays = frame.get("relays")
        self.relays = list(relays) if isinstance(relays, list) else []

    def log_path(self, path: str) -> str:
        """By which path the shim opens a log FIFO: the one that this worker holds.

        At Nomad's own path a task of the group may have put something else since the worker's look.
        """
        return self.logs.get(path, path)

    def listen(self, listener: Callable[[frames.Frame | None], None]) -> None:
        """Gives events to `listener`, the kept ones first; None says that the link has ended."""
        self._listener = listener
        backlog, self._backlog = self._backlog, []
        for frame in backlog:
            listener(frame)
        if self.closed:
            listener(None)

    def hold(self) -> None:
        """Keeps events again until the next `listen`."""
        self._listener = None

    def drop(self) -> None:
        """Ends this connection without waiting for its end; the worker goes on."""
        self.closed = True
        self._pump.cancel()
        self._writer.close()

    async def close(self) -> None:
        """Ends this connection only; the worker goes on."""
        self.drop()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await self._writer.wait_closed()

    @contextlib.contextmanager
    def dropped_on_failure(self) -> Generator[None, None, None]:
        """Drops the connection when the block fails or is cancelled: the link has no owner yet."""
        try:
            yield
        except BaseException:
            self.drop()
            raise

    async def _read(self) -> None:
        with contextlib.suppress(OSError, DriverError):  # a broken or babbling peer is a lost peer
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
        """The worker cannot take this connection, and says why before it closes it."""
        error = frame.get("error")
        for future in self._pending.values():
            if not future.done():
                future.set_exception(DriverError.from_wire(error))

    def _end(self, pump: asyncio.Task[None]) -> None:
        """Closes the connection when the pump has ended, or was cancelled before its first step.

        The listener is told of a lost worker, and not of a connection that was closed here.
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
        resolution=f"the driver makes a new one; try again. {WHERE_THAT_REPEATS}",
        recoverable=True,
        code=Code.UNAVAILABLE,
    )


async def connect_unix(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connects to a unix socket below a directory of any length.

    sun_path holds 108 bytes; a descriptor of the directory makes the name short.

    Raises:
        OSError: nobody listens there.
        DriverError: code DENIED; another user listens there.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            sock.connect(f"/proc/self/fd/{directory}/{path.name}")
            _check_listener(sock, path)
            return await asyncio.open_unix_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
    finally:
        os.close(directory)


def _check_listener(sock: socket.socket, path: Path) -> None:
    """Checks that whoever listens is root or who we are: systemd, a launcher or a worker."""
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if not private_directory.trusts(uid):
        raise DriverError(
            f"user {uid} listens at {path}, where the driver's own processes do",
            resolution="see who runs there; set state_dir to a directory of root's alone",
            code=Code.DENIED,
        )


async def connect(directory: Path) -> WorkerLink:
    """A link to the worker that looks after the task with this state directory.

    Raises:
        OSError: there is no worker.
        DriverError: code DENIED; another user listens there.
    """
    reader, writer = await connect_unix(directory / protocol.CONTROL_SOCKET)
    return WorkerLink(reader, writer)


async def samples(directory: Path, interval_s: float) -> AsyncGenerator[frames.Frame, None]:
    """Readings of the task's cgroup, first one at once, until the worker or the task ends.

    A connection of its own and no task beside the reader: fifty of these run every second.

    Raises:
        OSError: there is no worker.
        DriverError: the worker refuses, or sends what is no frame.
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
                        error = frame.get("error")
                        raise DriverError.from_wire(error)
    finally:
        writer.close()
