"""Reports of a task's health."""

from __future__ import annotations

from typing import Any, cast

import pytest

from actors.model.nomad import TaskConfig
from actors.task.messages import HealthChanged
from actors.task.reports import TaskReports
from workers.health.records import HEALTHY, UNHEALTHY, HealthState


def test_a_health_that_changes_all_the_time_makes_few_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    now_s = [1000.0]
    monkeypatch.setattr("actors.task.reports.time.monotonic", lambda: now_s[0])
    monkeypatch.setattr("actors.task.reports.tell", lambda _, said: told.append(said.event.message))
    reports = TaskReports(TaskConfig(id="a/t/1", name="t"), cast("Any", None))

    def change(status: str, *, restarts: bool = False) -> None:
        now_s[0] += 0.1
        state = HealthState(status=status, code=1, restarts=restarts)
        reports.of_worker(HealthChanged(state=state))

    for _ in range(100):
        change(UNHEALTHY)
        change(HEALTHY)
    assert 10 <= len(told) <= 11
    assert reports.health == HEALTHY
    now_s[0] += 60
    told.clear()
    change(HEALTHY)
    assert told[0].startswith("Health check: healthy; 1")
    assert told[0].endswith(" changes before have no event")
    told.clear()
    for _ in range(9):
        change(HEALTHY)
    change(UNHEALTHY, restarts=True)
    assert "the task is ended" in told[-1]
