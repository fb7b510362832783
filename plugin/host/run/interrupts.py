"""Ctrl-C and its kin: what each further one asks for."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from enum import IntEnum

# A terminal that goes away must not leave containers behind any more than Ctrl-C.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Wish(IntEnum):
    """What the user wants, more of it with every Ctrl-C."""

    RUN = 0
    STOP = 1
    KILL = 2
    LEAVE = 3


class Interrupts:
    """Counts the signals of this process and wakes who waits for one.

    Args:
        heard: is told of every new wish.
    """

    def __init__(self, heard: Callable[[Wish], None]) -> None:
        self.wish = Wish.RUN
        self._heard = heard
        self._events = {wish: asyncio.Event() for wish in Wish}

    def listen(self) -> None:
        """Takes the signals over."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.more)

    def ignore(self) -> None:
        """Gives them back to the default handling."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    def more(self) -> None:
        """One signal came."""
        if self.wish is Wish.LEAVE:
            return
        self.wish = Wish(self.wish + 1)
        self._events[self.wish].set()
        self._heard(self.wish)

    async def wanted(self, wish: Wish) -> None:
        """Returns once the user wants that much."""
        await self._events[wish].wait()
