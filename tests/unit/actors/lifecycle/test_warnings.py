"""The warning on options without effect."""

from __future__ import annotations

from actors.lifecycle import start
from actors.model.nomad import TaskConfig


def test_a_job_with_many_options_without_effect_gets_one_short_event() -> None:
    told: list[str] = []
    start._warn(TaskConfig(id="a/t/1", name="t"), ("mounts: no effect",) * 5000, told.append)
    assert len(told) == 1
    assert len(told[0]) < 4200
    assert told[0].endswith("…")
