"""Traces of containers in the kernel: cgroups, mounts, processes that name a container."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path


def traces(containers: Collection[str]) -> list[str]:
    """Lists the traces of the containers, by their ids."""
    left = [at for at, _, _ in os.walk("/sys/fs/cgroup") if _names(at, containers)]
    mounts = Path("/proc/mounts").read_text().splitlines()
    left += [line for line in mounts if _names(line, containers)]
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            if _names(words, containers):
                left.append(f"{entry.name} {words}")
    return left


def processes_of(container: str) -> list[int]:
    """Returns the pids of all processes in the container's cgroups."""
    groups = (Path(place, "cgroup.procs") for place in traces([container]))
    texts = [procs.read_text() for procs in groups if procs.is_file()]
    return sorted({int(line) for text in texts for line in text.split()})


def _names(text: str, containers: Collection[str]) -> bool:
    return any(container in text for container in containers)
