"""Removing what belongs to a container, whatever is left of it; "gone" counts as done."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from actors.files import tree_removal
from actors.files.state_dir import pins_directory, task_directory
from actors.lifecycle import leaked_shims
from actors.model import identifiers
from actors.model.ownership import LABEL_TASK_ID
from actors.processes import worker_link
from actors.provision import mount_sources
from containerd.api.records import Status
from proto.errors import Code, DriverError
from workers import protocol

if TYPE_CHECKING:
    from pathlib import Path

    from actors.lifecycle.running import Services
    from actors.model.node import Node
    from actors.processes.worker_link import WorkerLink
    from containerd.api.client import Containerd

_KILL_WAIT_S = 10.0
_RUNTIME_WAIT_S = 2.0
_POLL_S = 0.02
_log = logging.getLogger(__name__)


async def remove(
    node: Node,
    container_id: str,
    *,
    link: WorkerLink | None,
    snapshotter: str | None = None,
) -> None:
    """Kills and removes task, container, snapshot, lease, worker and state directory.

    snapshotter is for a container whose record has gone already.

    The order makes a repeat after any interruption find the rest: the container record goes
    after its task, its snapshot after it, the state directory last.

    Raises:
        DriverError: a step failed for another reason than that the thing is gone. It says what is
            left.
    """
    containerd = node.containerd
    left = ["task", "container", "snapshot", "lease"]
    try:
        record = await containerd.containers.get(container_id)
        key = identifiers.snapshot_key(container_id)
        if record is not None:
            snapshotter, key = record.snapshotter, record.snapshot_key
        await delete_task(containerd, container_id)
        left.remove("task")
        await containerd.containers.delete(container_id)
        left.remove("container")
        await containerd.snapshots.remove(snapshotter or containerd.default_snapshotter, key)
        await containerd.leases.delete(identifiers.lease_id(container_id))
    except DriverError as error:
        raise with_rest(error, container_id, left) from error
    if link is not None and not link.closed:
        await end_worker(link, farewell=True)
    pins = pins_directory(node.state_dir, container_id)
    await asyncio.to_thread(mount_sources.release, pins)
    await remove_directory(task_directory(node.state_dir, container_id))


def with_rest(error: DriverError, container_id: str, left: Sequence[str]) -> DriverError:
    """The failure of a removal that says what it has left."""
    return DriverError(
        error.brief,
        details=f"{error.details}; left of {container_id}: {', '.join(left)}",
        resolution=error.resolution,
        recoverable=error.recoverable,
        code=error.code,
    )


async def kill(link: WorkerLink) -> None:
    """Kills a task through its worker, which needs no containerd, and waits for its end.

    What this cannot do, containerd is asked for next, so it raises nothing.
    """
    deadline = asyncio.get_running_loop().time() + _KILL_WAIT_S
    with contextlib.suppress(DriverError):
        await link.request("kill", signal=int(signal.SIGKILL), all=True)
        while asyncio.get_running_loop().time() < deadline:
            if (await link.request("hello")).get("exit"):
                return
            await asyncio.sleep(_POLL_S)


async def remove_directory(directory: Path) -> None:
    """Removes a task's state directory, and ends the worker in it: nobody else finds that one."""
    with contextlib.suppress(OSError, DriverError):
        await end_worker(await worker_link.connect(directory))
    stays = await asyncio.to_thread(tree_removal.remove, directory)
    if stays:
        _log.warning("a state directory is not wholly removed", extra={"stays": stays})


async def delete_task(containerd: Containerd, container_id: str) -> None:
    """Kills the task if it runs and deletes it.

    Raises:
        DriverError: containerd refuses, or the process survives SIGKILL (stuck in the kernel).
    """
    record = await containerd.tasks.get(container_id)
    if record is None:
        await leaked_shims.end(containerd, container_id)
        return
    if record.status is not Status.STOPPED:
        with contextlib.suppress(DriverError):  # it may end meanwhile; the status tells
            await containerd.tasks.kill(container_id, signal.SIGKILL, everyone=True)
        await _until_stopped(containerd, container_id)
    await containerd.tasks.delete(container_id)


async def _until_stopped(containerd: Containerd, container_id: str) -> None:
    now = asyncio.get_running_loop().time
    patience, deadline = now() + _RUNTIME_WAIT_S, now() + _KILL_WAIT_S
    while True:
        record = await containerd.tasks.get(container_id)
        # A task that was created and never started is gone with its kill.
        if record is None or record.status is Status.STOPPED:
            return
        if now() > patience:
            patience = deadline
            # gVisor's runtime kills no container that was created and not started.
            await _kill_directly(containerd, container_id, record.pid)
        if now() > deadline:
            raise DriverError(
                f"the process of container {container_id} survives SIGKILL",
                details=f"pid {record.pid}, after {_KILL_WAIT_S:g} s",
                resolution="it is stuck in the kernel, see ps -o pid,stat,wchan",
                recoverable=True,
                code=Code.TIMEOUT,
            )
        await asyncio.sleep(_POLL_S)


async def _kill_directly(containerd: Containerd, container_id: str, pid: int) -> None:
    """Kills a task's process without its runtime."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # The number could have passed to another process; containerd still names it as the task's.
        record = await containerd.tasks.get(container_id)
        if record is not None and record.pid == pid and record.status is not Status.STOPPED:
            _log.warning("the runtime kills no task, killed directly", extra={"id": container_id})
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:
        return
    finally:
        os.close(pidfd)


async def end_worker(link: WorkerLink, *, farewell: bool = False) -> None:
    """Tells the worker to end; one that is gone already is fine.

    farewell: whoever still waits for the end of a log gets it. Not where a start may come next, and
    a reader that waits for its first line.
    """
    try:
        await link.request(protocol.END, **{protocol.FAREWELL: farewell})
    except DriverError as error:
        if error.code is not Code.UNAVAILABLE:
            _log.warning("a worker does not end", extra={"why": str(error)})
    finally:
        await link.close()


async def remove_if_ours(services: Services, container_id: str, task_id: str) -> None:
    """Removes a container that no actor knows, if it was made for this very task.

    The name is shared by all starts of a task in an alloc, so a newer start is left alone.
    """
    record = await services.containerd.containers.get(container_id)
    if record is not None and record.labels.get(LABEL_TASK_ID) != task_id:
        return
    await remove(services, container_id, link=None)


async def until_drained(link: WorkerLink, budget_s: float) -> None:
    """Waits until the log FIFOs have all that the task wrote; Delete drops the rest."""
    deadline = asyncio.get_running_loop().time() + budget_s
    while asyncio.get_running_loop().time() < deadline:
        try:
            if (await link.request("hello")).get("drained") is True:
                return
        except DriverError:
            return
        await asyncio.sleep(_POLL_S)
    _log.warning("log FIFOs are not read to their end", extra={"budget_s": budget_s})
