"""Usage from two readings, whatever the clock does between them."""

from __future__ import annotations

import pytest

from actors.model.cpu_topology import NodeSpeed
from actors.task.usage import UsageTracker
from proto.frames import Frame

S = 1_000_000_000
DAY = 86_400 * S


def percent(*samples: Frame) -> float:
    tracker = UsageTracker("a/t/1", NodeSpeed(total_mhz=2000, cores=2))
    for sample in samples:
        usage = tracker.next(sample)
    return usage.cpu.percent


@pytest.mark.parametrize("jump", [0, DAY, -DAY])
def test_a_clock_that_is_set_between_two_samples_changes_no_percentage(jump: int) -> None:
    first: Frame = {"t_ns": 10 * DAY, "m_ns": 5 * S, "cpu_total_ns": 0}
    then: Frame = {"t_ns": 10 * DAY + S + jump, "m_ns": 6 * S, "cpu_total_ns": S // 2}
    assert percent(first, then) == 50


def test_a_worker_of_an_earlier_release_tells_one_clock_only() -> None:
    first: Frame = {"t_ns": 10 * S, "cpu_total_ns": 0}
    assert percent(first, {"t_ns": 11 * S, "cpu_total_ns": S // 4}) == 25
    assert percent(first, {"t_ns": 9 * S, "cpu_total_ns": S // 4}) == 0
