"""Processes of a task that the kernel kills for want of memory while the task goes on.

The kernel says that there is something to count: version 2 by a priority event of memory.events,
which it also gives when nobody is killed; version 1 by an eventfd, before it kills. So the count is
read a moment later, and a task that is at its limit all the time does not wake its worker more and
more. Where the kernel cannot be asked to say so (version 1 below a read-only /sys), whoever samples
the task has the kills counted.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.cgroups import Readings
    from workers.loop import Loop, Timer

_SETTLE_S, _LONGEST_S = 2.0, 32.0
"""A process that was killed with much memory takes a while to end."""
_TELL_AGAIN_S = 60.0


class OomWatch:
    """Counts the kills of one task's cgroup.

    Args:
        loop: the worker's loop.
        readings: of the task's cgroup, kept open by the caller until after `close`.
        tell: called with the count when it has grown, at most once in a minute.
    """

    def __init__(self, loop: Loop, readings: Readings, tell: Callable[[int], None]) -> None:
        self.counted = readings.oom_kills()
        self._told = self.counted
        self._loop = loop
        self._readings = readings
        self._tell = tell
        self._pause_s = _SETTLE_S
        self._timer: Timer | None = None
        self._telling: Timer | None = None
        self._watch()

    def count(self) -> None:
        """Takes the kills that there are now for kills that the task has outlived."""
        kills = self._readings.oom_kills()
        grown = kills > self.counted
        self.counted = max(kills, self.counted)
        self._pause_s = _SETTLE_S if grown else min(self._pause_s * 2, _LONGEST_S)
        if self._telling is None:
            self._tell_growth()

    def sampled(self) -> None:
        """Somebody looks at the task anyway."""
        if self._readings.oom_notice < 0:
            self.count()

    def close(self) -> None:
        """Counts no more."""
        self._loop.forget(self._readings.oom_notice)
        for timer in (self._timer, self._telling):
            if timer is not None:
                timer.cancel()

    def _watch(self) -> None:
        if self._readings.oom_notice >= 0:
            self._loop.watch(self._readings.oom_notice, self._readings.oom_events, self._on_event)

    def _on_event(self, _: int) -> None:
        self._loop.forget(self._readings.oom_notice)
        self._timer = self._loop.later(self._pause_s, self._look)

    def _look(self) -> None:
        self.count()
        if self._readings.clear_notice():
            self._watch()

    def _tell_growth(self) -> None:
        self._telling = None
        if self.counted > self._told:
            self._told = self.counted
            self._telling = self._loop.later(_TELL_AGAIN_S, self._tell_growth)
            self._tell(self.counted)
