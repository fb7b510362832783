"""Retries of a step whose failure may pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from proto.errors import Code, DriverError

T = TypeVar("T")
_AWAY_S = 30.0
_AWAY_POLL_S = 0.2


async def retry(
    pauses_s: Sequence[float],
    attempt: Callable[[], Awaitable[T]],
    before_next: Callable[[DriverError], Awaitable[None]] | None = None,
) -> T:
    """Repeats an attempt until it succeeds, at most once more than there are pauses.

    Args:
        pauses_s: seconds to wait before the second attempt, the third, and so on.
        attempt: starts one attempt.
        before_next: prepares the next attempt after a failure, and raises a failure that no repeat
            mends; None repeats after every failure.

    Returns:
        The result of the first attempt that succeeds.

    Raises:
        DriverError: the failure of the last attempt, or the failure that `before_next` raised.
    """
    for pause_s in pauses_s:
        try:
            return await attempt()
        except DriverError as error:
            if before_next is not None:
                await before_next(error)
        await asyncio.sleep(pause_s)
    return await attempt()


class Retry:
    """Repeats the steps of one piece of work while containerd is away.

    A restart of containerd takes seconds, and nothing else ever removes the objects that a step of
    a clean-up leaves behind. All steps share one budget, which begins when containerd is first
    found away.

    Args:
        budget_s: seconds for all steps together; 0 tries each step once.
    """

    def __init__(self, budget_s: float = _AWAY_S) -> None:
        self._budget_s = budget_s
        self._until = 0.0

    async def __call__(self, step: Callable[[], Awaitable[T]]) -> T:
        """Runs a step, again and again while containerd is away.

        Raises:
            DriverError: the step's own failure; code UNAVAILABLE when containerd stays away.
        """
        now = asyncio.get_running_loop().time
        while True:
            try:
                return await step()
            except DriverError as error:
                if error.code is not Code.UNAVAILABLE:
                    raise
                self._until = self._until or now() + self._budget_s
                if now() >= self._until:
                    raise
            await asyncio.sleep(_AWAY_POLL_S)
