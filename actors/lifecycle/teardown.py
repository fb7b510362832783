"""Removes the objects of a container, whichever exist; an object that is gone counts as removed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from actors.files import tree_removal
from actors.files.state_dir import pins_directory, task_directory
from actors.lifecycle import leaked_shims
from actors.lifecycle.cgroup import free_disk
from actors.model import identifiers
from actors.model.ownership import LABEL_ALLOC_ID, LABEL_TASK_ID
from actors.processes import worker_link
from actors.provision import mount_sources
from actors.step_log import StepLog
from containerd.api.records import Status
from containerd.spec.build import shim_group
from proto.errors import Code, DriverError
from workers import protocol

if TYPE_CHECKING:
    from actors.lifecycle.running import Services
    from actors.model.node import Node
    from actors.processes.worker_link import WorkerLink
    from containerd.api.client import Containerd

_KILL_WAIT_S = 10.0
_RUNTIME_WAIT_S = 2.0
_SHIM_WAIT_S = 5.0
_FORK_WAIT_S = 2.0
_POLL_S = 0.02
_log = logging.getLogger(__name__)


async def remove(
    node: Node,
    container_id: str,
    *,
    link: WorkerLink | None,
    reason: str,
    snapshotter: str | None = None,
) -> None:
    """Kills and removes task, snapshot, container, worker, pins and state directory.

    A repeat after any interruption removes the rest, because of the order: the snapshot goes after
    the task, the container's record, which names the snapshotter, after the snapshot, and the state
    directory last. containerd itself never collects the snapshot, see `attempt`.

    Args:
        node: containerd, and the driver's state directory.
        container_id: the container, which may be gone already.
        link: the connection to the task's worker; None connects where a worker still runs.
        reason: why the container is removed, for the log.
        snapshotter: the snapshotter of a container whose record is gone; None is containerd's
            default.

    Raises:
        DriverError: a step failed while its object existed. The details name the objects that are
            left: the failed one, and all that come after it.
    """
    containerd = node.containerd
    left = ["task", "snapshot", "container"]
    alloc_id = ""
    log = StepLog(_log, reason, container_id=container_id)
    try:
        record = await containerd.containers.get(container_id)
        key = identifiers.snapshot_key(container_id)
        if record is not None:
            snapshotter, key = record.snapshotter, record.snapshot_key
            alloc_id = record.labels.get(LABEL_ALLOC_ID, "")
            log = StepLog(
                _log,
                reason,
                container_id=container_id,
                task_id=record.labels.get(LABEL_TASK_ID, ""),
                alloc_id=alloc_id,
            )
        await delete_task(node, container_id, alloc_id)
        left.remove("task")
        log("task deleted")
        await containerd.snapshots.remove(snapshotter or containerd.default_snapshotter, key)
        left.remove("snapshot")
        log("snapshot removed")
        await free_disk(record.labels if record is not None else {})
        await containerd.containers.delete(container_id)
        log("container deleted")
    except DriverError as error:
        log("removal failed", reason=str(error))
        raise with_rest(error, container_id, left) from error
    if link is not None and not link.closed:
        await end_worker(link, release_readers=True)
        log("worker ended")
    pins = pins_directory(node.state_dir, container_id)
    await asyncio.to_thread(mount_sources.release, pins)
    log("mount sources released")
    await remove_directory(task_directory(node.state_dir, container_id))
    log("state directory removed")


def with_rest(error: DriverError, container_id: str, left: Sequence[str]) -> DriverError:
    """Returns a copy of a failure whose details name the objects that are left."""
    return error.replaced(details=f"{error.details}; left of {container_id}: {', '.join(left)}")


async def kill(link: WorkerLink) -> None:
    """Kills a task through the task's worker, without containerd, and waits for the exit.

    Raises nothing: the caller asks containerd next, for a task that is still running.
    """
    deadline = asyncio.get_running_loop().time() + _KILL_WAIT_S
    with contextlib.suppress(DriverError):
        await link.request(protocol.KILL, signal=int(signal.SIGKILL), all=True)
        while asyncio.get_running_loop().time() < deadline:
            if (await link.request(protocol.HELLO)).get("exit"):
                return
            await asyncio.sleep(_POLL_S)


async def remove_directory(directory: Path) -> None:
    """Removes a task's state directory, and ends the worker that listens in the directory.

    Without the directory nothing finds that worker again.
    """
    with contextlib.suppress(OSError, DriverError):
        await end_worker(await worker_link.connect(directory))
    problem = await asyncio.to_thread(tree_removal.remove, directory)
    if problem:
        _log.warning(
            "cannot remove a task's state directory completely",
            extra={"container_id": directory.name, "reason": problem},
        )


async def delete_task(node: Node, container_id: str, alloc_id: str) -> None:
    """Kills the task if it runs, and deletes the task.

    Ends a leaked shim of the container where containerd knows no task, and a shim without answers.

    Args:
        node: containerd with the container's namespace, and the groups of shims.
        container_id: the container, whose task may be gone already.
        alloc_id: the task's allocation; empty where the allocation is unknown.

    Raises:
        DriverError: containerd refuses. Code TIMEOUT; the process survives SIGKILL for 10 s, stuck
            in the kernel.
    """
    containerd = node.containerd
    record = await containerd.tasks.get(container_id)
    if record is not None and record.status is not Status.STOPPED:
        if record.status is not Status.UNKNOWN:  # the shim does not answer
            with contextlib.suppress(
                DriverError
            ):  # the task can end meanwhile, as the status shows
                await containerd.tasks.kill(container_id, signal.SIGKILL, everyone=True)
        await _until_stopped(containerd, container_id)
    async with node.shim_groups.leaving(alloc_id, container_id):
        if record is None:
            await _end_shim(containerd, container_id)
        else:
            await containerd.tasks.delete(container_id)


async def _end_shim(containerd: Containerd, container_id: str) -> None:
    container = await containerd.containers.get(container_id)
    group = shim_group(container.spec_json) if container is not None else ""
    await leaked_shims.end(containerd, container_id, group)


async def _until_stopped(containerd: Containerd, container_id: str) -> None:
    now = asyncio.get_running_loop().time
    kill_directly_at, deadline = now() + _RUNTIME_WAIT_S, now() + _KILL_WAIT_S
    end_shim_at = now() + _SHIM_WAIT_S
    while True:
        record = await containerd.tasks.get(container_id)
        # The kill removes a task that was created and never started.
        if record is None or record.status is Status.STOPPED:
            return
        if now() > kill_directly_at:
            kill_directly_at = deadline
            # gVisor's runtime does not kill a container that was created and not started.
            await _kill_directly(containerd, container_id, record.pid)
        # containerd 2's shim answers beside a hung runtime, but does not report the exit.
        hangs = record.status is Status.UNKNOWN or _is_gone(record.pid)
        if hangs and now() > end_shim_at:
            end_shim_at = deadline
            _log.warning("shim reports no exit; ending it", extra={"container_id": container_id})
            await _end_shim(containerd, container_id)
            continue
        if now() > deadline:
            raise DriverError(
                f"the process of container {container_id} survives SIGKILL",
                details=f"pid {record.pid}, after {_KILL_WAIT_S:g} s",
                resolution="it is stuck in the kernel, see ps -o pid,stat,wchan",
                recoverable=True,
                code=Code.TIMEOUT,
            )
        await asyncio.sleep(_POLL_S)


def _is_gone(pid: int) -> bool:
    return pid > 0 and not Path("/proc", str(pid)).exists()


async def _kill_directly(containerd: Containerd, container_id: str, pid: int) -> None:
    """Kills a task's process without the task's runtime."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # Another process can have got the number before the pidfd was opened. The pidfd is right
        # when containerd still names the number afterwards.
        record = await containerd.tasks.get(container_id)
        if record is not None and record.pid == pid and record.status is not Status.STOPPED:
            _log.warning(
                "runtime did not kill the task; sent SIGKILL directly",
                extra={"container_id": container_id, "pid": pid},
            )
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:
        return
    finally:
        os.close(pidfd)


async def end_worker(link: WorkerLink, *, release_readers: bool = False) -> None:
    """Ends a worker, and closes the link; does nothing more where the worker is gone.

    Args:
        link: the connection to the worker.
        release_readers: True when the task is destroyed: a reader that still waits for the end of a
            log gets the end. False where a start can follow, whose first line a reader may await.
    """
    try:
        await link.request(protocol.END, **{protocol.RELEASE_READERS: release_readers})
    except DriverError as error:
        if error.code is not Code.UNAVAILABLE:
            _log.warning("cannot end a worker", extra={"reason": str(error)})
    finally:
        await link.close()


async def end_forked(forking: asyncio.Future[WorkerLink]) -> None:
    """Ends a worker whose fork may still be under way, as when a start is cancelled.

    The worker would otherwise create files in a state directory that is being removed, and stay
    there for ten minutes.

    Args:
        forking: the fork, which gets a moment to end, and is cancelled then.
    """
    await asyncio.wait([forking], timeout=_FORK_WAIT_S)
    if not forking.done():
        forking.cancel()
    with contextlib.suppress(DriverError, OSError, asyncio.CancelledError):
        await end_worker(await forking)


async def remove_if_ours(services: Services, container_id: str, task_id: str) -> None:
    """Removes a container that no actor knows, if the container belongs to this start of the task.

    All starts of a task in an allocation use the same name, so a newer start is left alone.

    Args:
        services: with the namespace of containerd to search.
        container_id: the container.
        task_id: Nomad's id, which is new for every start.

    Raises:
        DriverError: see `remove`.
    """
    record = await services.containerd.containers.get(container_id)
    if record is not None and record.labels.get(LABEL_TASK_ID) != task_id:
        return
    await remove(services, container_id, link=None, reason="destroyed without an actor")


async def until_drained(link: WorkerLink, budget_s: float) -> None:
    """Waits until the log FIFOs hold all output of the task; Delete drops the rest.

    Args:
        link: the connection to the task's worker.
        budget_s: the longest wait in seconds.
    """
    deadline = asyncio.get_running_loop().time() + budget_s
    while asyncio.get_running_loop().time() < deadline:
        try:
            if (await link.request(protocol.HELLO)).get("drained") is True:
                return
        except DriverError:
            return
        await asyncio.sleep(_POLL_S)
    _log.warning("log FIFOs were not drained in time", extra={"budget_s": budget_s})
