"""Tests of the sentences on a failed health check."""

from __future__ import annotations

from typing import Any

import pytest

from workers.health import texts
from workers.health.records import UNHEALTHY, HealthState


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"code": 7}, "exit code 7"),
        ({"code": 7, "output": "\n \nfirst\nsecond"}, "exit code 7: first"),
        ({"problem": "no end within 2 s", "output": "slow\n"}, "no end within 2 s: slow"),
        ({"problem": "cannot run: \x1b\nx" + "y" * 999, "output": "z"}, "cannot run: ?: z"),
        ({"problem": "y" * 999}, f"{'y' * 200}…"),
        ({"code": 1, "output": "a\x1b[31mred\x07"}, "exit code 1: a?[31mred?"),
        ({"code": 1, "output": "x" * 4096}, f"exit code 1: {'x' * 200}…"),
    ],
)
def test_a_cause_has_one_printable_line_of_the_output(fields: dict[str, Any], text: str) -> None:
    assert texts.cause(HealthState(status=UNHEALTHY, **fields)) == text


def test_the_reason_of_an_exit_names_the_failures() -> None:
    state = HealthState(status=UNHEALTHY, code=1, output="no", failures=3)
    assert texts.reason_of_exit(state) == (
        "unhealthy: the health check failed 3 times in a row (exit code 1: no)"
    )
