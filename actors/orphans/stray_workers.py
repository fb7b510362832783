"""Workers whose state directory was removed: no plugin can connect to such a worker any more.

The search identifies a worker by the open directory, never by the process name alone. A descriptor
of the process (pidfd) ends the worker.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from actors.model.ownership import OwnerLabels
from actors.orphans.decision import Resource, ResourceKind
from actors.processes.process_table import processes
from workers import identity

if TYPE_CHECKING:
    from actors.model.node import Node

_NAME = "cd-worker"
_DELETED = " (deleted)"


def find(node: Node) -> list[Resource]:
    """Lists the stray workers of this state directory. Blocks briefly."""
    tasks = _tasks(node)
    resources: list[Resource] = []
    for process in filter(_is_worker, processes()):
        container = _container(process, tasks)
        if container:
            resource = Resource(
                kind=ResourceKind.WORKER,
                name=f"pid {process.name}",
                container=container,
                owner=OwnerLabels(state_dir=str(node.state_dir)),
                created_at_s=_started_at_s(int(process.name)),
                pid=int(process.name),
            )
            resources.append(resource)
    return resources


def end(node: Node, worker: Resource) -> None:
    """Ends a stray worker if the process is still the same worker. Blocks briefly."""
    process = identity.identify(worker.pid)
    descriptor = identity.open_pidfd(process) if process is not None else None
    if descriptor is None:
        return
    try:
        # Read again while the pidfd is open: another process cannot get the number now.
        path = Path(f"/proc/{worker.pid}")
        if _is_worker(path) and _container(path, _tasks(node)) == worker.container:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def _tasks(node: Node) -> str:
    return os.path.realpath(node.state_dir / "tasks")


def _is_worker(process: Path) -> bool:
    with contextlib.suppress(OSError):
        return (process / "comm").read_text().strip() == _NAME
    return False


def _container(process: Path, tasks: str) -> str:
    """Returns the container whose removed state directory a worker holds open; may be empty."""
    descriptors = f"{process}/fd"
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(descriptors):  # noqa: PTH208 - thousands of workers
            target = os.readlink(f"{descriptors}/{descriptor}")  # noqa: PTH115
            parent, _, name = target.removesuffix(_DELETED).rpartition("/")
            if parent == tasks:
                return name if target.endswith(_DELETED) else ""
    return ""


def _started_at_s(pid: int) -> float:
    """Returns the start of a process in seconds of the epoch; the present for an ended process."""
    ticks = identity.start_ticks(pid)
    if ticks is None:
        return time.time()
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age_s
