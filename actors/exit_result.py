"""From the worker's exit record to what Nomad is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.nomad_types import ExitResult

if TYPE_CHECKING:
    from workers.wire import ExitRecord

_SIGNAL_BASE = 128
_HIGHEST_SIGNAL = 64


def exit_result(record: ExitRecord) -> ExitResult:
    """Code, signal and OOM of a task that ended.

    The runtime reports death by signal n as 128 + n. An OOM kill of a child that the task
    survived with code 0 is no OOM of the task.
    """
    number = record.code - _SIGNAL_BASE
    return ExitResult(
        exit_code=record.code,
        signal=number if 0 < number <= _HIGHEST_SIGNAL else 0,
        oom_killed=record.oom_kills > 0 and record.code != 0,
        error=record.reason if record.lost else "",
    )
