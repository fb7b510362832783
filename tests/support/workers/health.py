"""Health checks of tasks that a test's worker watches, without a plugin."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from proto import frames
from workers import exit_record, protocol
from workers.health.records import HealthCheck

QUICK: dict[str, Any] = {
    "interval_ms": 50,
    "timeout_ms": 20_000,
    "start_period_ms": 0,
    "start_interval_ms": 50,
    "retries": 1,
    "restarts": False,
    "signal": 15,
    "kill_timeout_ms": 20_000,
}


def write_check(directory: Path, script: str, **fields: Any) -> None:
    """Writes the check of a task into the task's state directory, as the plugin does."""
    write_command(directory, ["/bin/sh", "-c", script], **fields)


def write_command(directory: Path, words: list[str], **fields: Any) -> None:
    """Writes a check with another command than a shell's script."""
    process = {"args": words, "cwd": "/", "env": ["PATH=/bin:/usr/bin"], "user": {}}
    check = HealthCheck(process=json.dumps(process), **{**QUICK, **fields})
    body = frames.pack({"v": exit_record.VERSION, **check.to_wire()})
    (directory / protocol.HEALTH_CHECK).write_bytes(body)


def running(*words: str) -> list[int]:
    """Lists the processes of the machine with exactly these arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                parts = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
                if tuple(parts) == words:
                    found.append(int(entry.name))
    return found
