"""Keys of log lines that are the same in the whole plugin."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.model.nomad import TaskConfig


def task_keys(task: TaskConfig) -> dict[str, str]:
    """Returns the keys that every log line about a task has."""
    return {"task_id": task.id, "alloc_id": task.alloc_id}


def elapsed_ms(begun: float) -> int:
    """Returns the milliseconds since `begun`, a time of `time.monotonic`."""
    return round((time.monotonic() - begun) * 1000)


def keys_of_id(task_id: str) -> dict[str, str]:
    """Returns the keys of a task of which only Nomad's id is known: `<alloc>/<task>/<8 hex>`."""
    return {"task_id": task_id, "alloc_id": task_id.partition("/")[0]}
