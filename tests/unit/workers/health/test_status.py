"""Tests of the health of a task: Docker's rules, on a clock of the test."""

from __future__ import annotations

import pytest

from workers.health.records import HEALTHY, STARTING, UNHEALTHY, HealthCheck
from workers.health.status import Status

CHECK = HealthCheck(
    process="{}",
    interval_ms=30_000,
    timeout_ms=1000,
    start_period_ms=60_000,
    start_interval_ms=5000,
    retries=3,
    restarts=False,
    signal=15,
    kill_timeout_ms=5000,
)


def take(status: Status, *results: tuple[bool, float]) -> list[str]:
    """Takes (success, begin of the check); returns the status after each."""
    statuses = []
    for success, begun_s in results:
        before = status.status
        changed = status.take(failed=not success, begun_s=begun_s)
        assert changed == (status.status != before)
        statuses.append(status.status)
    return statuses


def test_failures_in_the_start_period_do_not_count() -> None:
    status = Status(CHECK, 100.0, "")
    assert take(status, *[(False, 100.0 + n) for n in range(0, 60, 5)]) == [STARTING] * 12
    later = [(False, 160.0), (False, 190.0), (False, 220.0)]
    assert take(status, *later) == [STARTING, STARTING, UNHEALTHY]


def test_the_first_success_ends_the_start_period() -> None:
    status = Status(CHECK, 0.0, "")
    results = [(True, 1.0), (False, 2.0), (False, 3.0), (False, 4.0)]
    assert take(status, *results) == [HEALTHY, HEALTHY, HEALTHY, UNHEALTHY]


def test_a_success_between_failures_starts_the_count_again() -> None:
    status = Status(CHECK, 0.0, HEALTHY)
    results = [(False, 1.0), (False, 2.0), (True, 3.0), (False, 4.0), (False, 5.0)]
    assert take(status, *results) == [HEALTHY] * 5
    assert status.failures == 2


def test_an_unhealthy_task_becomes_healthy_by_one_success() -> None:
    status = Status(CHECK, 0.0, UNHEALTHY)
    assert take(status, (False, 1.0), (True, 2.0)) == [UNHEALTHY, HEALTHY]


@pytest.mark.parametrize(
    ("known", "at_s", "pause_s"),
    [
        ("", 0.0, 5.0),
        ("", 59.9, 5.0),
        ("", 60.0, 30.0),
        (HEALTHY, 1.0, 30.0),
        (UNHEALTHY, 1.0, 30.0),
    ],
)
def test_the_pause_is_shorter_only_while_the_task_is_starting(
    known: str, at_s: float, pause_s: float
) -> None:
    assert Status(CHECK, 0.0, known).pause_s(at_s) == pause_s
