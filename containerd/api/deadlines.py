"""Time limits of calls to a containerd that accepts requests and does not answer.

Two limits exist beside the deadline of each call. All calls inside `within` share one limit, so
that the steps of a clean-up do not each wait for the same silent containerd. A call with a long
deadline has a liveness probe: containerd is asked for its version, a request without cost. While
containerd answers the probe, containerd works on the call; without an answer, the call fails too.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from typing import TypeVar

from proto.errors import Code, DriverError

T = TypeVar("T")
# A probe is repeated once: 11 s from the call to the error.
PROBE_AFTER_S = 5.0
PROBE_S = 3.0
_LATER_PROBES = 3
_MISSES = 2
# Also when the shared limit is used up: a working containerd answers within milliseconds.
_LEAST_S = 0.5

ADVICE = "see containerd's log (journalctl -u containerd); tasks keep running during its restart"

# Clock time (time.monotonic) at which the shared limit ends. A limit must reach all calls of a
# coroutine and its children, and no other task: a context variable does that without a parameter
# in every function between `within` and the call.
_until: ContextVar[float | None] = ContextVar("until", default=None)


@contextlib.contextmanager
def within(seconds: float) -> Generator[None, None, None]:
    """Limits all calls inside the block to `seconds` in total; each call gets at least 0.5 s."""
    until, outer = time.monotonic() + seconds, _until.get()
    token = _until.set(until if outer is None else min(until, outer))
    try:
        yield
    finally:
        _until.reset(token)


def shortened(timeout_s: float | None) -> float | None:
    """Returns the time limit of a call: its own, or the rest of the shared limit if shorter."""
    until = _until.get()
    if until is None:
        return timeout_s
    left = max(_LEAST_S, until - time.monotonic())
    return left if timeout_s is None else min(timeout_s, left)


async def probed(
    call: Awaitable[T],
    probe: Callable[[], Awaitable[object]],
    action: str,
    probe_after_s: float = PROBE_AFTER_S,
) -> T:
    """Returns the result of a long call, and probes containerd while the call runs.

    Args:
        call: the call.
        probe: makes a request that containerd answers at once.
        action: the call in words, for the error.
        probe_after_s: seconds until the first probe; later probes are three times rarer.

    Raises:
        DriverError: the error of the call; TIMEOUT when two probes in a row get no answer.
    """
    running = asyncio.ensure_future(call)
    pause_s, missed = probe_after_s, 0
    try:
        while not (await asyncio.wait([running], timeout=pause_s))[0]:
            missed = 0 if await _is_answered(probe) else missed + 1
            if missed == _MISSES and not running.done():
                raise DriverError(
                    "containerd takes requests and does not answer",
                    details=f"asked to {action}, and then for its version",
                    resolution=ADVICE,
                    recoverable=True,
                    code=Code.TIMEOUT,
                )
            pause_s = 0.0 if missed else probe_after_s * _LATER_PROBES
        return running.result()
    finally:
        running.cancel()


async def _is_answered(probe: Callable[[], Awaitable[object]]) -> bool:
    """Returns False if a probe timed out. A refusal is an answer too."""
    try:
        await probe()
    except DriverError as error:
        return error.code is not Code.TIMEOUT
    return True
