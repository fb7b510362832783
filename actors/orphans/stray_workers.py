"""Workers whose state directory was removed under them: nobody can connect to them any more.

They are told by what they hold open, never by their name alone, and are ended through a descriptor
of that very process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from actors.model.ownership import OwnerLabels
from actors.orphans.judgement import Kind, Thing
from workers import identity

if TYPE_CHECKING:
    from actors.model.node import Node

_NAME = "cd-worker"
_DELETED = " (deleted)"


def find(node: Node) -> list[Thing]:
    """Those of this state directory. Blocks, not for long."""
    tasks = os.path.realpath(node.state_dir / "tasks")
    found: list[Thing] = []
    for process in _workers():
        container = _container(process, tasks)
        if container:
            thing = Thing(
                kind=Kind.WORKER,
                name=f"pid {process.name}",
                container=container,
                mark=OwnerLabels(state_dir=str(node.state_dir)),
                since=_born(int(process.name)),
                pid=int(process.name),
            )
            found.append(thing)
    return found


def end(node: Node, thing: Thing) -> None:
    """Ends one, if it still is what it was. Blocks, not for long."""
    process = identity.identify(thing.pid)
    descriptor = identity.open_pidfd(process) if process is not None else None
    if descriptor is None:
        return
    try:
        # Looked at again while its number cannot pass to another.
        if (thing.pid, thing.container) in {(one.pid, one.container) for one in find(node)}:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def _workers() -> Iterator[Path]:
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError):
                if (process / "comm").read_text().strip() == _NAME:
                    yield process


def _container(process: Path, tasks: str) -> str:
    """The container whose state directory it holds open although it is gone; empty for none."""
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            held = os.readlink(descriptor)  # noqa: PTH115 - a name, not a path that exists
            parent, _, name = held.removesuffix(_DELETED).rpartition("/")
            if held.endswith(_DELETED) and parent == tasks:
                return name
    return ""


def _born(pid: int) -> float:
    """Seconds of the epoch; now, for one that is gone meanwhile."""
    ticks = identity.start_ticks(pid)
    if ticks is None:
        return time.time()
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age_s
