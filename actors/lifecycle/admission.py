"""Admission of starts to the runtime: a few at a time, first come, first served.

Many starts that share a few processors run in lockstep: no task runs until nearly all do. A few at
a time do the same work in turns, so half of the tasks run after half of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

STARTS_PER_CORE = 2
"""Best in measurements of 50 and 200 starts at once on two cores.

With fewer, processors idle while starts wait for answers. With more, the lockstep returns.
"""
# A start in its turn takes 0.1 to 0.3 s.
_COUNTED_S = 2.0
_REPORT_AFTER_S = 10.0


class Admission:
    """Turns in the runtime, for all starts of the plugin. Used on the event loop only.

    A turn counts for 2 s at most. A start that takes longer waits for a device or a silent peer,
    and uses no processor: the next start is admitted beside the slow start. So starts that hang
    delay the others and never stop them, also when all admitted starts hang. On an overloaded
    machine more starts than `at_once` share the runtime, but far fewer than without turns.

    Args:
        at_once: number of turns that count at the same time.
        counted_s: seconds for which a turn counts.
        report_after_s: seconds after which a waiting start is reported.
    """

    def __init__(
        self,
        at_once: int,
        counted_s: float = _COUNTED_S,
        report_after_s: float = _REPORT_AFTER_S,
    ) -> None:
        self._at_once = at_once
        self.counted_s = counted_s
        self._report_after_s = report_after_s
        self._turns = asyncio.Semaphore(at_once)
        # The starts that wait, in their order.
        self._queue: dict[object, None] = {}

    @contextlib.asynccontextmanager
    async def turn(
        self, log: Callable[[str], object], report: Callable[[str], object]
    ) -> AsyncGenerator[None, None]:
        """Waits for a turn; the block is the turn. A cancelled start leaves the queue.

        Args:
            log: gets a line when the turn begins, and when the turn does not count any more.
            report: gets one sentence with the place in the queue when the start waits for long.
        """
        await self._admitted(report)
        log("start admitted to the runtime")
        with contextlib.ExitStack() as counted:
            counted.callback(self._turns.release)

            def admit_next() -> None:
                counted.close()  # the end of the block then releases nothing
                log("start is slow, later starts do not wait for this start")

            timer = asyncio.get_running_loop().call_later(self.counted_s, admit_next)
            counted.callback(timer.cancel)
            yield

    async def _admitted(self, report: Callable[[str], object]) -> None:
        start = object()

        def report_place() -> None:
            place = list(self._queue).index(start) + 1
            report(
                f"Waiting to start for {self._report_after_s:g} s: place {place} in the queue of "
                f"this node, {self._at_once} starts run at a time"
            )

        self._queue[start] = None
        timer = asyncio.get_running_loop().call_later(self._report_after_s, report_place)
        try:
            await self._turns.acquire()
        finally:
            timer.cancel()
            del self._queue[start]
