"""How a task is taken over from an earlier plugin, or declared gone once nothing of it is left."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from actors import host_parts, identifiers, netns, teardown, worker_link
from actors.handle_state import HandleState
from actors.running_task import RunningTask, Services
from actors.worker_link import WorkerLink
from proto.errors import Code, DriverError
from workers import journal, wire
from workers.wire import ExitRecord

if TYPE_CHECKING:
    from actors.nomad_types import NetworkOverride, TaskConfig
    from proto.frames import Frame

_log = logging.getLogger(__name__)


async def recover(
    services: Services, task: TaskConfig, version: int, driver_state: bytes
) -> RunningTask:
    """A task as it is now: running with its worker, or ended with its exit.

    Raises:
        DriverError: NOT_FOUND when nothing of the task lives, after cleaning; other codes when it
            cannot be told, and then nothing was touched.
    """
    state = HandleState.decode(version, driver_state)
    directory = identifiers.task_directory(services.state_dir, state.container_id)
    if state.boot_id != services.boot_id:
        await teardown.remove(
            services, state.container_id, link=None, snapshotter=state.snapshotter
        )
        raise _gone(task.id, "the machine was restarted since the task ran")
    link, exit_record = await attach(services, state, directory)
    if link is None and exit_record is None:
        await teardown.remove(
            services, state.container_id, link=None, snapshotter=state.snapshotter
        )
        raise _gone(task.id, "containerd knows no such task and nothing recorded its exit")
    return RunningTask(
        state=state,
        directory=directory,
        link=link,
        exit=exit_record,
        network=await asyncio.to_thread(_network, task),
    )


def _network(task: TaskConfig) -> NetworkOverride | None:
    """As at the start; none where the allocation's namespace is gone already."""
    if task.network is None:
        return None
    try:
        return host_parts.override(task, netns.look(task.network.path))
    except DriverError:
        return None


async def attach(
    services: Services, state: HandleState, directory: Path
) -> tuple[WorkerLink | None, ExitRecord | None]:
    """The task's worker, a new one where the old is gone; and the exit if it is recorded.

    (None, None) means that the task does not exist any more and left no record.

    Raises:
        DriverError: containerd or the launcher cannot be asked now.
    """
    link = await _living_worker(directory)
    hello = await _greet(link) if link is not None else None
    if link is None or hello is None:
        ended = await asyncio.to_thread(journal.read_exit, str(directory))
        if ended is not None:
            return None, ended
        return await _new_worker(services, state, directory), None
    recorded = hello.get("exit")
    if isinstance(recorded, dict):
        return link, ExitRecord.from_wire(recorded)
    if hello.get("watching") is not True:
        await _watch(services, state, link)
    return link, None


async def _living_worker(directory: Path) -> WorkerLink | None:
    try:
        return await worker_link.connect(directory)
    except OSError:
        return None


async def _greet(link: WorkerLink) -> Frame | None:
    """What a worker says of itself; None where no version is common and it was told to end."""
    try:
        hello = await link.request(wire.HELLO, **wire.STATED)
        wire.agree(hello)
    except DriverError as error:
        if error.code is not Code.UNSUPPORTED:
            raise
        _log.warning("a worker of another release is replaced", extra={"why": str(error)})
        await teardown.end_worker(link)
        return None
    return hello


async def _new_worker(services: Services, state: HandleState, directory: Path) -> WorkerLink | None:
    record = await services.containerd.task(state.container_id)
    if record is None:
        return None
    await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
    link = await services.launcher.fork(
        wire.WorkerSpec(
            name=state.container_id,
            dir=str(directory),
            stdout=state.stdout_path,
            stderr=state.stderr_path,
            log_buffer_bytes=services.settings.log_buffer_bytes,
            log_drops=services.settings.log_drops,
        )
    )
    _log.info("a new worker looks after the task", extra={"id": state.container_id})
    await _watch(services, state, link)
    return link


async def _watch(services: Services, state: HandleState, link: WorkerLink) -> None:
    shim = await services.containerd.shim(state.container_id, state.pid)
    if shim is None:
        await teardown.end_worker(link)
        raise DriverError(
            f"the shim of container {state.container_id} cannot be found",
            recoverable=True,
            code=Code.UNAVAILABLE,
        )
    await link.request(
        "watch",
        address=shim.address,
        api=shim.api,
        namespace=services.namespace,
        container_id=state.container_id,
    )


def _gone(task_id: str, why: str) -> DriverError:
    return DriverError(
        "task not found for given id",
        details=f"{task_id}: {why}",
        resolution="Nomad starts it again",
        code=Code.NOT_FOUND,
    )
