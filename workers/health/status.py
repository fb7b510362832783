"""A task's health by the results of its checks, with Docker's rules. The clock is an argument.

- A task is starting until its first change. A success makes the task healthy.
- `retries` failures in a row make the task unhealthy. A failure of a check that began in the start
  period does not count while the task is starting.
- The pause between two checks is `start_interval` while the task is starting in the start period,
  else `interval`.
"""

from __future__ import annotations

from workers.health.records import HEALTHY, STARTING, UNHEALTHY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workers.health.records import HealthCheck


class Status:
    """The health of one task.

    Args:
        check: the task's check.
        started_s: monotonic time of the task's start.
        known: the status that an earlier worker of the task has found; "" for none.
    """

    def __init__(self, check: HealthCheck, started_s: float, known: str) -> None:
        self.status = known or STARTING
        self.failures = 0
        self._check = check
        self.started_s = started_s

    def pause_s(self, now_s: float) -> float:
        """Returns the time until the next check begins."""
        early = self._is_early(now_s)
        return (self._check.start_interval_ms if early else self._check.interval_ms) / 1000

    def take(self, *, failed: bool, begun_s: float) -> bool:
        """Takes the result of a check that began at `begun_s`. Returns True for a new status."""
        before = self.status
        if not failed:
            self.failures = 0
            self.status = HEALTHY
        elif not self._is_early(begun_s):
            self.failures += 1
            if self.failures >= self._check.retries:
                self.status = UNHEALTHY
        return self.status != before

    def _is_early(self, at_s: float) -> bool:
        end_s = self.started_s + self._check.start_period_ms / 1000
        return self.status == STARTING and at_s < end_s
