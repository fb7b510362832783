"""Signals of a run: each Ctrl-C raises the stop level."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from enum import IntEnum

# A closed terminal must not leave containers behind, just as Ctrl-C must not.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopLevel(IntEnum):
    """Level of the user's wish to stop; each Ctrl-C raises the level by one."""

    RUN = 0
    STOP = 1
    KILL = 2
    LEAVE = 3


class Interrupts:
    """Counts the signals of this process, and wakes tasks that wait for a level.

    Args:
        on_raise: called with every new level.
    """

    def __init__(self, on_raise: Callable[[StopLevel], None]) -> None:
        self.level = StopLevel.RUN
        self._on_raise = on_raise
        self._events = {level: asyncio.Event() for level in StopLevel}

    def listen(self) -> None:
        """Installs the signal handlers."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.raise_level)

    def ignore(self) -> None:
        """Restores the default signal handlers."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    def raise_level(self) -> None:
        """Raises the level, after a signal."""
        if self.level is StopLevel.LEAVE:
            return
        self.level = StopLevel(self.level + 1)
        self._events[self.level].set()
        self._on_raise(self.level)

    async def reached(self, level: StopLevel) -> None:
        """Waits until the user has raised the level so far."""
        await self._events[level].wait()
