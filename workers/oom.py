"""Count of the processes that the kernel kills for lack of memory while the task goes on.

The kernel gives a notice. cgroup version 2 gives a priority event of memory.events, also without a
kill. Version 1 writes to an eventfd, before the kill. So the worker reads the count a moment later,
and the pause grows for a task that is at the limit all the time. Without notices (version 1 below a
read-only /sys) each sample of the task reads the count.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.cgroups import Readings
    from workers.loop import Loop, Timer

_SETTLE_S, _LONGEST_S = 2.0, 32.0
"""Pause between notice and count: a killed process with much memory takes a while to end."""
_REPORT_AGAIN_S = 60.0


class OomWatch:
    """Counts the kills of one task's cgroup.

    Args:
        loop: the worker's loop.
        readings: readings of the task's cgroup; the caller keeps them open until after `close`.
        report: called with the count when it has grown, at most once in a minute.
    """

    def __init__(self, loop: Loop, readings: Readings, report: Callable[[int], None]) -> None:
        self.counted = readings.oom_kills()
        self._reported = self.counted
        self._loop = loop
        self._readings = readings
        self._report = report
        self._pause_s = _SETTLE_S
        self._timer: Timer | None = None
        self._next_report: Timer | None = None
        self._watch()

    def count(self) -> None:
        """Counts all kills until now as kills that the task has survived."""
        kills = self._readings.oom_kills()
        grown = kills > self.counted
        self.counted = max(kills, self.counted)
        self._pause_s = _SETTLE_S if grown else min(self._pause_s * 2, _LONGEST_S)
        if self._next_report is None:
            self._report_growth()

    def sampled(self) -> None:
        """Counts with a sample of the task, if the kernel gives no notices."""
        if self._readings.oom_notice < 0:
            self.count()

    def close(self) -> None:
        """Stops counting."""
        self._loop.forget(self._readings.oom_notice)
        for timer in (self._timer, self._next_report):
            if timer is not None:
                timer.cancel()

    def _watch(self) -> None:
        if self._readings.oom_notice >= 0:
            self._loop.watch(self._readings.oom_notice, self._readings.oom_events, self._on_event)

    def _on_event(self, _: int) -> None:
        self._loop.forget(self._readings.oom_notice)
        self._timer = self._loop.later(self._pause_s, self._read)

    def _read(self) -> None:
        self.count()
        if self._readings.clear_notice():
            self._watch()

    def _report_growth(self) -> None:
        self._next_report = None
        if self.counted > self._reported:
            self._reported = self.counted
            self._next_report = self._loop.later(_REPORT_AGAIN_S, self._report_growth)
            self._report(self.counted)
