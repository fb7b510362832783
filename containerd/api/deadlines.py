"""A containerd that takes requests and answers none: how long anybody waits for one.

Two things bound a call besides its own deadline. What runs inside `within` has one time for all its
calls together, so that steps of a clean-up do not each wait for the same silence. And beside a call
that may take long containerd is asked for its version, which costs it nothing: while it tells that,
it works; when it does not, nothing will come of the call either.
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
# With one more try: 11 s from the call to the error.
ASK_AFTER_S = 5.0
ANSWER_S = 3.0
_RARER = 3
_MISSES = 2
# Also when the time is over: what is not stuck takes milliseconds.
_LEAST_S = 0.5

ADVICE = "see its log (journalctl -u containerd); tasks run on while it is restarted"

_until: ContextVar[float | None] = ContextVar("until", default=None)


@contextlib.contextmanager
def within(seconds: float) -> Generator[None, None, None]:
    """All calls made in here together get so many seconds, each at least a moment."""
    until, around = time.monotonic() + seconds, _until.get()
    token = _until.set(until if around is None else min(until, around))
    try:
        yield
    finally:
        _until.reset(token)


def time_for(timeout_s: float | None) -> float | None:
    """Returns what a call gets of its own timeout."""
    until = _until.get()
    if until is None:
        return timeout_s
    left = max(_LEAST_S, until - time.monotonic())
    return left if timeout_s is None else min(timeout_s, left)


async def attended(
    call: Awaitable[T],
    lives: Callable[[], Awaitable[object]],
    what: str,
    ask_after_s: float = ASK_AFTER_S,
) -> T:
    """The answer of a call that may take long.

    Args:
        call: the call.
        lives: asks for something that takes no time.
        what: the call in words, after "asked to".
        ask_after_s: when to ask first.

    Raises:
        DriverError: the call's own; TIMEOUT when `lives` gets no answer either.
    """
    running = asyncio.ensure_future(call)
    pause_s, missed = ask_after_s, 0
    try:
        while not (await asyncio.wait([running], timeout=pause_s))[0]:
            missed = 0 if await _answers(lives) else missed + 1
            if missed == _MISSES and not running.done():
                raise DriverError(
                    "containerd takes requests and does not answer",
                    details=f"asked to {what}, and then for its version",
                    resolution=ADVICE,
                    recoverable=True,
                    code=Code.TIMEOUT,
                )
            pause_s = 0.0 if missed else ask_after_s * _RARER
        return running.result()
    finally:
        running.cancel()


async def _answers(lives: Callable[[], Awaitable[object]]) -> bool:
    """A refusal is an answer, too."""
    try:
        await lives()
    except DriverError as error:
        return error.code is not Code.TIMEOUT
    return True
