"""Takes over tasks that the Go driver started, and removes the files that only such tasks leave.

The shim of such a task writes to FIFOs below `/run/containerd/fifo`. The Go plugin copied them to
Nomad's FIFOs; now the task's worker does the copying (`workers/logs/relay.py`).
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
from containerd.runtimes import Runtime

if TYPE_CHECKING:
    from actors.handles.go_handle import GoHandle
    from actors.lifecycle.running import RunningTask, Services
    from actors.model.nomad import TaskConfig
    from actors.processes.worker_link import WorkerLink

# containerd's Go client creates FIFOs here, in a directory with a random name for each task.
FIFO_ROOT = Path("/run/containerd/fifo")
_STREAMS = ("stdin", "stdout", "stderr")
# In the task's directory: /etc/hosts, and resolv.conf where the group has a `dns` block.
_NETWORK_FILES = ("local/etc_hosts", "resolv.conf")
_log = logging.getLogger(__name__)


class HeldLogs:
    """The plugin's ends of the log FIFOs of one task, beside the worker's.

    Only for a task whose worker reads the FIFOs of the shim: a task of the Go driver, or a task
    whose log the worker collects. When the task ends while no worker runs, the last lines are in a
    FIFO that the shim closes. For a task of the Go driver, the worker also is the only writer of
    Nomad's FIFO, and Nomad's log collector ends for good when no process has a FIFO open for
    writing.

    Attributes:
        open: True while the worker collects the log, until all lines are written.
    """

    def __init__(self) -> None:
        self._descriptors: list[int] = []
        self._ended = False
        self.open = False

    def hold(self, running: RunningTask | None, link: WorkerLink) -> None:
        """Opens the worker's FIFOs, then closes the descriptors for an earlier worker.

        Does nothing after `release`: a found worker can report the exit before the link is known.
        """
        if self._ended or running is None:
            return
        self.open = running.state.log.has_collector
        if not running.from_go_driver and not self.open:
            return
        opened: list[int] = []
        # Not for reading too: the worker would take the descriptor for Nomad's reader.
        wanted = [(path, os.O_WRONLY) for path in link.logs.values()]
        wanted += [(path, os.O_RDONLY) for path in link.relays]
        for path, flags in wanted:
            with contextlib.suppress(OSError):  # the task has closed the stream
                opened.append(os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC))
        if opened:  # else the worker has just died, and a new worker follows
            _close(self._descriptors)
            self._descriptors = opened

    def exited(self) -> None:
        """Closes the FIFOs of an ended task of the Go driver: the worker copies the last lines."""
        if not self.open:
            self.release()

    def drained(self, *, complete: bool) -> None:
        """Closes the FIFOs of a task whose last line is written."""
        if complete:
            self.open = False
            self.exited()

    def release(self) -> None:
        """Closes all descriptors."""
        _close(self._descriptors)
        self._descriptors = []
        self._ended = True


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


async def complete(services: Services, handle: GoHandle) -> HandleState:
    """Completes a handle of the Go driver with containerd's facts about the task.

    The result has this boot's id: containerd knows no task of an earlier boot. Without a
    kill_signal in the job, the task stops at SIGTERM, as under the Go driver.

    Raises:
        DriverError: containerd gives no answer.
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
        host_kernel=record is not None
        and Runtime(name=record.runtime, binary_name=record.runtime_binary).shares_kernel,
    )


async def begin(services: Services, container_id: str) -> None:
    """Starts a task that the Go driver created but did not start.

    The Go driver waits five seconds between the two, and its plugin can end meanwhile.

    Raises:
        DriverError: the process cannot be started.
    """
    task = await services.containerd.tasks.get(container_id)
    if task is not None and task.status is Status.CREATED:
        _log.info(
            "starting a task that was created but not started",
            extra={"container_id": container_id},
        )
        await services.containerd.tasks.start(container_id)


async def remove_unknown(services: Services, task_id: str) -> None:
    """Removes the containers of a task that no actor knows, because its recovery failed.

    Containers of the Go driver have no labels, and lie in namespaces of the Go driver.

    Args:
        services: the plugin's services.
        task_id: Nomad's id of the task.

    Raises:
        DriverError: the id has another form than Nomad's, or a step failed.
    """
    alloc_id, name = identifiers.split_task_id(task_id)
    container = identifiers.container_id(alloc_id, name, cgroup_v2=services.cgroup_v2)
    await teardown.remove_if_ours(services, container, task_id)
    for cgroup_v2 in {False, services.cgroup_v2}:
        container = identifiers.container_id(alloc_id, name, cgroup_v2=cgroup_v2)
        go_services = services.within(identifiers.namespace(cgroup_v2=cgroup_v2))
        record = await go_services.containerd.containers.get(container)
        if record is not None and LABEL_TASK_ID not in record.labels:
            await teardown.remove(
                go_services, container, link=None, reason="a destroyed task of the Go driver"
            )
            await asyncio.to_thread(_remove_fifos, container)


async def remove_traces(task: TaskConfig, container_id: str) -> None:
    """Removes the files that the Go driver created for a task, after the container is gone."""
    await asyncio.to_thread(_remove_fifos, container_id)
    await asyncio.to_thread(_remove_network_files, task)


def _remove_fifos(container_id: str) -> None:
    for directory in FIFO_ROOT.glob("*"):
        fifos = [directory / f"{container_id}-{stream}" for stream in _STREAMS]
        for fifo in fifos:
            with contextlib.suppress(OSError):
                if stat.S_ISFIFO(fifo.lstat().st_mode):
                    fifo.unlink()
                    with contextlib.suppress(OSError):  # another FIFO is left
                        directory.rmdir()


def _remove_network_files(task: TaskConfig) -> None:
    """Removes the network files without following links.

    The task can write to the same directories, and the task may run as root.
    """
    with contextlib.suppress(OSError):
        root = os.open(f"{task.alloc_dir}/{task.name}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for path in _NETWORK_FILES:
                _unlink(root, *os.path.split(path))
        finally:
            os.close(root)


def _unlink(root: int, directory: str, name: str) -> None:
    with contextlib.suppress(OSError):
        parent = syscalls.openat2(
            root, directory or ".", os.O_PATH | os.O_DIRECTORY, syscalls.INSIDE
        )
        try:
            os.unlink(name, dir_fd=parent)
        finally:
            os.close(parent)
