"""Retries of a step whose failure may pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from proto.errors import Code, DriverError

T = TypeVar("T")
_AWAY_S = 30.0
_AWAY_POLL_S = 0.2


class Patience:
    """Repeats steps of one piece of work while containerd is away: a restart takes it seconds.

    Nobody else would ever remove what a step of a clean-up leaves. The time is one for all steps,
    and begins when containerd is first missed.
    """

    def __init__(self, budget_s: float = _AWAY_S) -> None:
        self._budget_s = budget_s
        self._until = 0.0

    async def __call__(self, step: Callable[[], Awaitable[T]]) -> T:
        """Does a step.

        Raises:
            DriverError: the step's own; UNAVAILABLE when containerd stays away.
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
