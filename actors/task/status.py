"""From the worker's exit record to what Nomad is told."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from actors.model.nomad import ExitResult

if TYPE_CHECKING:
    from workers.protocol import ExitRecord

_SIGNAL_BASE = 128
_HIGHEST_SIGNAL = 64


def exit_result(record: ExitRecord) -> ExitResult:
    """Code, signal and OOM of a task that ended.

    The runtime reports death by signal n as 128 + n. A worker of release 1.1 and before does not
    judge whether a kill for want of memory ended the task: the code alone tells then.
    """
    number = record.code - _SIGNAL_BASE
    oom_killed = record.oom_killed
    if oom_killed is None:
        oom_killed = record.oom_kills > 0 and number == signal.SIGKILL
    return ExitResult(
        exit_code=record.code,
        signal=number if 0 < number <= _HIGHEST_SIGNAL else 0,
        oom_killed=oom_killed,
        error=record.reason if record.lost else "",
    )
