"""Tasks that the Go driver started: what containerd knows of them, and what only they leave behind.

Their shims write to FIFOs below `/run/containerd/fifo`, which the Go plugin copied to Nomad's; now
the task's worker does that (`workers/logs/relay.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from actors.handles.handle import HandleState
from actors.lifecycle import teardown
from actors.model import identifiers
from actors.model.ownership import LABEL_TASK_ID
from containerd import syscalls
from containerd.api.records import Status

if TYPE_CHECKING:
    from actors.handles.go_handle import GoHandle
    from actors.lifecycle.running import Services
    from actors.model.nomad import TaskConfig
    from actors.processes.worker_link import WorkerLink

# Where containerd's Go client makes FIFOs: a directory for each task, named by chance.
FIFO_ROOT = Path("/run/containerd/fifo")
_STREAMS = ("stdin", "stdout", "stderr")
# In the task's directory: its /etc/hosts, and a resolv.conf where the group has a `dns` block.
_NAME_FILES = ("local/etc_hosts", "resolv.conf")
_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
_log = logging.getLogger(__name__)


class HeldLogs:
    """The plugin's ends of the log FIFOs of one task, beside its worker's.

    Nomad's log collector ends for good when nobody has a FIFO open for writing. Of other tasks the
    shim has; here it is the worker alone, whose death must not be the end of the log. And when the
    task ends while there is no worker, its last lines are in a FIFO that the shim lets go of.
    """

    def __init__(self) -> None:
        self._descriptors: list[int] = []
        self._over = False

    def hold(self, link: WorkerLink) -> None:
        """Opens what the worker has open, then lets go of what is held of an earlier worker.

        Nothing after `release`: a worker that was found again may tell the exit before itself.
        """
        if self._over:
            return
        opened: list[int] = []
        # Not for reading too: the worker would take that for Nomad's reader.
        wanted = [(path, os.O_WRONLY) for path in link.logs.values()]
        wanted += [(path, os.O_RDONLY) for path in link.relays]
        for path, flags in wanted:
            with contextlib.suppress(OSError):  # of a stream that the task has closed
                opened.append(os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC))
        if opened:  # else it has just died, and its successor is next
            _close(self._descriptors)
            self._descriptors = opened

    def release(self) -> None:
        """The task has ended: what its worker still carries on is the last."""
        _close(self._descriptors)
        self._descriptors = []
        self._over = True


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


async def complete(services: Services, handle: GoHandle) -> HandleState:
    """The handle with what containerd knows; of this boot, for a task of another is not there.

    Such a task stops at SIGTERM where the job has no kill_signal, as it did before.

    Raises:
        DriverError: containerd cannot be asked.
    """
    record = await services.containerd.containers.get(handle.container_id)
    task = await services.containerd.tasks.get(handle.container_id)
    return HandleState(
        container_id=handle.container_id,
        containerd_namespace=services.namespace,
        snapshotter=record.snapshotter if record else services.containerd.default_snapshotter,
        boot_id=services.boot_id,
        started_at_ns=handle.started_at_ns,
        pid=task.pid if task else 0,
        stdout_path=handle.stdout_path,
        stderr_path=handle.stderr_path,
        stop_signal="",
        image=record.image if record else "",
    )


async def begin(services: Services, container_id: str) -> None:
    """Starts a task whose plugin went in the five seconds that it let pass before it did that.

    Raises:
        DriverError: the process cannot be started.
    """
    task = await services.containerd.tasks.get(container_id)
    if task is not None and task.status is Status.CREATED:
        _log.info("a task that was made only is started", extra={"id": container_id})
        await services.containerd.tasks.start(container_id)


async def remove_unknown(services: Services, task_id: str) -> None:
    """Removes what a task that no actor knows has in containerd: Nomad could not recover it.

    What the Go driver made has no labels, and lies in its own namespaces.

    Raises:
        DriverError: the id is none, or a step failed.
    """
    alloc_id, name = identifiers.split_task_id(task_id)
    container = identifiers.container_id(alloc_id, name, cgroup_v2=services.cgroup_v2)
    await teardown.remove_if_ours(services, container, task_id)
    for cgroup_v2 in {False, services.cgroup_v2}:
        container = identifiers.container_id(alloc_id, name, cgroup_v2=cgroup_v2)
        place = services.within(identifiers.namespace(cgroup_v2=cgroup_v2))
        record = await place.containerd.containers.get(container)
        if record is not None and LABEL_TASK_ID not in record.labels:
            await teardown.remove(place, container, link=None)
            await asyncio.to_thread(_remove_fifos, container)


async def remove_traces(task: TaskConfig, container_id: str) -> None:
    """Removes what the Go driver left on the disk for a task, now that its container is gone."""
    await asyncio.to_thread(_remove_fifos, container_id)
    await asyncio.to_thread(_remove_name_files, task)


def _remove_fifos(container_id: str) -> None:
    for directory in FIFO_ROOT.glob("*"):
        fifos = [directory / f"{container_id}-{stream}" for stream in _STREAMS]
        for fifo in fifos:
            with contextlib.suppress(OSError):
                if stat.S_ISFIFO(fifo.lstat().st_mode):
                    fifo.unlink()
                    with contextlib.suppress(OSError):  # the other one is still there
                        directory.rmdir()


def _remove_name_files(task: TaskConfig) -> None:
    """No link is followed: the task could write beside them, as root of this machine even."""
    with contextlib.suppress(OSError):
        root = os.open(f"{task.alloc_dir}/{task.name}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for path in _NAME_FILES:
                _unlink(root, *os.path.split(path))
        finally:
            os.close(root)


def _unlink(root: int, directory: str, name: str) -> None:
    with contextlib.suppress(OSError):
        place = syscalls.openat2(root, directory or ".", os.O_PATH | os.O_DIRECTORY, _BENEATH)
        try:
            os.unlink(name, dir_fd=place)
        finally:
            os.close(place)
