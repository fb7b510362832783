"""Runs pulls in pullers, which one pull server forks. The server stays for an idle minute."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from actors.processes import child_process
from containerd.pull.protocol import Progress, PullRequest, PullResult
from proto import frames
from proto.errors import Code, DriverError

Report = Callable[[str], object]
_GRACE_S = 10.0
# A busy machine needs seconds to load the modules of a pull.
_BEGIN_S = 30.0
# Longer than the server's own grace for a puller that is stuck.
_END_S = 8.0
_log = logging.getLogger(__name__)


class _Pace:
    """Times of progress events: after 1, 2, 4 … seconds, then once a minute.

    Nomad keeps only the ten newest events of a task: frequent events would push out others.
    """

    def __init__(self) -> None:
        self._pause_s = 1.0
        self._next = time.monotonic() + self._pause_s

    def due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._pause_s = min(60.0, self._pause_s * 2)
        self._next = now + self._pause_s
        return True


class _NotBegunError(Exception):
    """A server has ended, or is stuck, and has forked no puller for the request."""


class _Server:
    """A pull server: the process, and the control connection to the process."""

    def __init__(self, process: child_process.Child, control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._reaping = asyncio.ensure_future(self._reaped())

    @property
    def ended(self) -> bool:
        """True if the process has ended, for example after an idle minute."""
        return self._reaping.done()

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while the process runs."""
        return self._process.returncode

    def begin(self) -> socket.socket:
        """Asks for a puller, and returns the connection to the puller.

        Raises:
            _NotBegunError: the server has ended.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"p"], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise _NotBegunError from error
        return ours

    def leave(self) -> None:
        """Lets the server end after its last pull."""
        self._control.close()

    async def kill(self) -> None:
        """Kills the server, and waits for the end. Pullers of the server go on."""
        self.leave()
        if not self.ended:
            self._process.send_signal(signal.SIGKILL)
        await asyncio.wait([self._reaping], timeout=_END_S)

    async def end(self) -> None:
        """Lets the server end, and waits for the end."""
        self.leave()
        await asyncio.wait([self._reaping])

    async def _reaped(self) -> None:
        await child_process.ended(self._process)
        self._control.close()


class Pullers:
    """The pullers of all image stores of a process. Belongs to the event loop.

    Each pull has a process of its own, so a pull fails alone. The pull server holds no request.

    Args:
        begin_s: seconds after which a server that forks no puller is replaced.
    """

    def __init__(self, begin_s: float = _BEGIN_S) -> None:
        self._begin_s = begin_s
        self._server: _Server | None = None
        self._starting = asyncio.Lock()

    async def run(self, wire: PullRequest, report: Report) -> PullResult:
        """Runs a pull. A cancelled caller ends the puller.

        Args:
            wire: the request.
            report: receives a sentence for the task's events.

        Raises:
            DriverError: the failure that the puller reports, or the puller's death.
        """
        try:
            async with asyncio.timeout(wire.timeout_s + _GRACE_S):
                return await self._run(wire.to_wire(), report)
        except TimeoutError:
            raise DriverError(
                f"the pull was cancelled after {wire.timeout_s:g} s",
                resolution="raise image_pull_timeout, or check the registry and the network",
                recoverable=True,
                code=Code.TIMEOUT,
            ) from None

    async def close(self) -> None:
        """Ends the server; running pulls end first."""
        if self._server is not None:
            await self._server.end()

    async def _run(self, request: frames.Frame, report: Report) -> PullResult:
        server = await self._running()
        try:
            return await self._pull(server, request, report)
        except _NotBegunError:
            # The server was at the end of its idle minute, or was killed, or is stuck.
            await server.kill()
        server = await self._running()
        try:
            return await self._pull(server, request, report)
        except _NotBegunError as error:
            await server.kill()
            raise _no_answer(server.status) from error

    async def _pull(self, server: _Server, request: frames.Frame, report: Report) -> PullResult:
        """Sends the request to a new puller, reports progress, and returns the result."""
        async with (
            _streams(server.begin()) as (reader, writer),
            contextlib.aclosing(_events(reader)) as events,
        ):
            writer.write(frames.encode(request))
            try:
                async with asyncio.timeout(self._begin_s):
                    await anext(events)  # BEGUN
            except (StopAsyncIteration, TimeoutError) as error:
                raise _NotBegunError from error
            return await _followed(events, str(request.get("reference")), report)

    async def _running(self) -> _Server:
        async with self._starting:
            if self._server is None or self._server.ended:
                self._server = await _started()
            return self._server


async def _started() -> _Server:
    program = str(child_process.ROOT / "containerd" / "puller.py")
    ours, theirs = socket.socketpair()
    try:
        process = await child_process.started(
            [sys.executable, "-I", program, "serve"], stdin=theirs.fileno(), new_session=True
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return _Server(process, ours)


async def _followed(events: AsyncIterator[frames.Frame], image: str, report: Report) -> PullResult:
    """Reports progress until the puller states the result."""
    pace = _Pace()
    async for event in events:
        match event.get("event"):
            case "progress":
                if pace.due():
                    report(Progress.from_wire(event).sentence())
            case "step":
                keys = {"image": image, "elapsed_ms": event.get("elapsed_ms")}
                _log.debug("pull: %s", event.get("step"), extra=keys)
            case "note":
                report(str(event.get("text", "")))
            case "done":
                return PullResult.from_wire(event)
            case "failed":
                raise DriverError.from_wire(event.get("error"))
            case "ended":
                raise _no_answer(event.get("status"))
    raise _no_answer(None)


@contextlib.asynccontextmanager
async def _streams(
    connection: socket.socket,
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Opens streams on a connection, and waits for the puller's end afterwards."""
    try:
        reader, writer = await asyncio.open_unix_connection(sock=connection)
    except BaseException:
        connection.close()
        raise
    try:
        yield reader, writer
    finally:
        try:
            # The end of its stdin ends the puller; the server closes the connection after that.
            with contextlib.suppress(OSError, TimeoutError):
                writer.write_eof()
                async with asyncio.timeout(_END_S):
                    while await reader.read(65536):
                        pass
        finally:
            # The time limit above raises CancelledError in a cancelled task on Python 3.11.
            writer.transport.abort()


async def _events(reader: asyncio.StreamReader) -> AsyncGenerator[frames.Frame]:
    decoder = frames.Decoder()
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            for frame in decoder.feed(data):
                yield frame


def _no_answer(status: object) -> DriverError:
    details = "its exit status is not known"
    if isinstance(status, int):
        details = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return DriverError(
        "the puller process ended without an answer",
        details=details,
        resolution="see dmesg: perhaps memory or processes ran out (MemoryMax and TasksMax of the"
        " Nomad agent's unit)",
        recoverable=True,
        code=Code.UNAVAILABLE,
    )
