"""Sentences on the result of a health check, for task events and for the exit of a task."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workers.health.records import HealthState

_LONGEST = 200


def cause(state: HealthState) -> str:
    """Returns the cause of an unhealthy status: the exit code, and the first line of the output."""
    words = _first_line(state.problem) or f"exit code {state.code}"
    line = _first_line(state.output)
    return f"{words}: {line}" if line else words


def reason_of_exit(state: HealthState) -> str:
    """Returns the reason for the end of an unhealthy task."""
    return f"unhealthy: the health check failed {state.failures} times in a row ({cause(state)})"


def _first_line(output: str) -> str:
    for line in output.splitlines():
        shown = "".join(char if char.isprintable() else "?" for char in line).strip()
        if shown:
            return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
    return ""
