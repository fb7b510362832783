"""Runs a puller process for one pull: the request, the events, the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable

from actors.processes import child_process
from containerd.pull.protocol import Progress, PullRequest, PullResult
from proto import frames
from proto.errors import Code, DriverError

Report = Callable[[str], object]
_GRACE_S = 10.0
_END_S = 5.0
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


async def run(wire: PullRequest, report: Report) -> PullResult:
    """Runs a puller. A cancelled caller ends the puller.

    Args:
        wire: the request.
        report: receives a sentence for the task's events.

    Raises:
        DriverError: the failure that the puller reports, or the puller's death.
    """
    argv = [sys.executable, "-I", str(child_process.ROOT / "containerd" / "puller.py")]
    loop = asyncio.get_running_loop()
    process = await child_process.started(
        argv, stdin=child_process.PIPE, stdout=child_process.PIPE, new_session=True
    )
    try:
        async with asyncio.timeout(wire.timeout_s + _GRACE_S):
            return await _converse(process, wire.to_wire(), report)
    except TimeoutError:
        raise DriverError(
            f"the pull was cancelled after {wire.timeout_s:g} s",
            resolution="raise image_pull_timeout, or check the registry and the network",
            recoverable=True,
            code=Code.TIMEOUT,
        ) from None
    finally:
        await loop.run_in_executor(None, child_process.finish, process, _END_S)


async def _converse(
    process: child_process.Child, request: frames.Frame, report: Report
) -> PullResult:
    """Sends the request to the puller, reports progress, and returns the result."""
    assert process.stdin is not None  # noqa: S101 - stdin is PIPE
    assert process.stdout is not None  # noqa: S101
    with contextlib.suppress(BrokenPipeError):  # the puller has died; see the exit status
        process.stdin.write(frames.encode(request))
        process.stdin.flush()  # the pipe stays open: its end stops the puller
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), process.stdout
    )
    decoder = frames.Decoder()
    pace = _Pace()
    try:
        while data := await reader.read(65536):
            for frame in decoder.feed(data):
                match frame.get("event"):
                    case "progress":
                        if pace.due():
                            report(Progress.from_wire(frame).sentence())
                    case "step":
                        keys = {
                            "image": request.get("reference"),
                            "elapsed_ms": frame.get("elapsed_ms"),
                        }
                        _log.debug("pull: %s", frame.get("step"), extra=keys)
                    case "note":
                        report(str(frame.get("text", "")))
                    case "done":
                        return PullResult.from_wire(frame)
                    case "failed":
                        raise DriverError.from_wire(frame.get("error"))
    finally:
        transport.close()
    status = await asyncio.to_thread(child_process.finish, process, _END_S)
    raise DriverError(
        "the puller process ended without an answer",
        details=f"killed by signal {-status}" if status < 0 else f"exit status {status}",
        resolution="see dmesg: perhaps memory or processes ran out (MemoryMax and TasksMax of the"
        " Nomad agent's unit)",
        recoverable=True,
        code=Code.UNAVAILABLE,
    )
