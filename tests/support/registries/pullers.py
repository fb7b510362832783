"""The pull servers and pullers below a process, by the names in the process table."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.support.plugin.driver import children


def servers(pid: int) -> list[int]:
    """Lists the pull servers that a process has started."""
    return [int(child) for child in children(pid) if _name(child) == "cd-pull-server"]


def pullers(pid: int) -> list[int]:
    """Lists the pullers of all pull servers of a process."""
    found = [child for server in servers(pid) for child in children(server)]
    return [int(child) for child in found if _name(child) == "cd-puller"]


def _name(pid: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
