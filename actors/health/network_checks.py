"""Check of the network namespaces of allocations: has Nomad forgotten some?

An agent removes the namespace at the end of an allocation, unless the agent has lost its state.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from actors.health.findings import Finding, warn
from actors.provision import alloc_networks

_ALLOC_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# An allocation has a namespace and no process while Nomad fetches artifacts and images.
_UNUSED_S = 3600.0
_SHOWN = 5


def check(root: Path) -> Iterator[Finding]:
    """Yields a finding if namespaces of allocations have no process for long. Blocks.

    Args:
        root: root of the machine's files; tests use another directory.
    """
    unused = sorted(_unused(root / "var/run/netns", root / "proc"))
    if unused:
        shown = ", ".join(unused[:_SHOWN])
        more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
        yield warn(
            "network",
            f"{len(unused)} network namespaces of allocations have no process for an hour:"
            f" {shown}{more}",
            "if Nomad has no such allocation on this node: ip netns delete NAME",
        )


def _unused(directory: Path, processes: Path) -> Iterator[str]:
    """Yields the names of old namespaces without a process."""
    old: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for entry in directory.iterdir():
            if _ALLOC_ID.fullmatch(entry.name) and alloc_networks.is_mounted(entry):
                status = entry.stat()
                # The kernel sets the time when the namespace gets its file.
                if time.time() - status.st_mtime > _UNUSED_S:
                    old[status.st_ino] = entry.name
    if old:
        for process in processes.iterdir():
            if process.name.isdecimal():
                with contextlib.suppress(OSError):
                    old.pop(os.stat(process / "ns/net").st_ino, "")  # noqa: PTH116 - a magic link
    yield from old.values()
