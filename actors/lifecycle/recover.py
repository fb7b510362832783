"""How a task is taken over from an earlier plugin, or declared gone once nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from actors.files.state_dir import task_directory
from actors.handles import go_handle
from actors.handles.go_handle import GoHandle
from actors.handles.handle import HandleState
from actors.handles.names import check, check_container
from actors.lifecycle import go_takeover, teardown
from actors.lifecycle.running import RunningTask, Services
from actors.processes import worker_link
from actors.processes.worker_link import WorkerLink
from actors.provision import host_resources, netns
from containerd.api.records import ShimAddress
from proto.errors import Code, DriverError
from proto.exhaustion import exhausted, remedy
from workers import exit_record as journal
from workers import private_directory, protocol
from workers.protocol import ExitRecord

if TYPE_CHECKING:
    from actors.model.nomad import NetworkOverride, TaskConfig
    from proto.frames import Frame

_log = logging.getLogger(__name__)


async def recover(
    services: Services, task: TaskConfig, version: int, driver_state: bytes
) -> RunningTask:
    """A task as it is now: running with its worker, or ended with its exit.

    Raises:
        DriverError: NOT_FOUND when nothing of the task lives, after cleaning; other codes when it
            cannot be told or the handle is not this task's, and then nothing was touched.
    """
    await asyncio.to_thread(private_directory.check, str(services.state_dir))
    running = await _described(services, task, version, driver_state)
    services, state = running.services, running.state
    if state.boot_id != services.boot_id:
        await _clean_up(running, task)
        raise _gone(task.id, "the machine was restarted since the task ran")
    link, exit_record = await attach(running)
    if link is None and exit_record is None:
        await _clean_up(running, task)
        raise _gone(task.id, "containerd knows no such task and nothing recorded its exit")
    with link.dropped_on_failure() if link is not None else contextlib.nullcontext():
        if running.from_go_driver and exit_record is None:
            await go_takeover.begin(services, state.container_id)
        network = await asyncio.to_thread(_network, task)
    return dataclasses.replace(running, link=link, exit=exit_record, network=network)


def container_id(version: int, driver_state: bytes) -> str:
    """Which container a handle is of.

    Raises:
        DriverError: it cannot be read.
    """
    if version == go_handle.VERSION:
        return GoHandle.decode(driver_state).container_id
    return HandleState.decode(version, driver_state).container_id


async def _described(
    services: Services, task: TaskConfig, version: int, driver_state: bytes
) -> RunningTask:
    """Returns what the handle says of the task; nobody has looked for its worker yet."""
    from_go_driver = version == go_handle.VERSION
    if from_go_driver:
        handle = GoHandle.decode(driver_state)
        check(task, handle)
        services = services.within(handle.containerd_namespace)
        state = await go_takeover.complete(services, handle)
    else:
        state = HandleState.decode(version, driver_state)
        check(task, state)
        services = services.within(state.containerd_namespace)
    return RunningTask(
        services=services,
        state=state,
        directory=task_directory(services.state_dir, state.container_id),
        link=None,
        from_go_driver=from_go_driver,
    )


async def _clean_up(running: RunningTask, task: TaskConfig) -> None:
    state = running.state
    if not running.from_go_driver:
        record = await running.services.containerd.containers.get(state.container_id)
        check_container(task, record)
    await teardown.remove(
        running.services, state.container_id, link=None, snapshotter=state.snapshotter
    )
    if running.from_go_driver:
        await go_takeover.remove_traces(task, state.container_id)


def _network(task: TaskConfig) -> NetworkOverride | None:
    """As at the start; none where the allocation's namespace is gone already."""
    if task.network is None:
        return None
    try:
        return host_resources.override(task, netns.look(task.network.path))
    except DriverError:
        return None


async def attach(task: RunningTask) -> tuple[WorkerLink | None, ExitRecord | None]:
    """The task's worker, a new one where the old is gone; and the exit if it is recorded.

    (None, None) means that the task does not exist any more and left no record.

    Raises:
        DriverError: containerd or the launcher cannot be asked now.
    """
    link = await _living_worker(task.directory)
    if link is not None:
        with link.dropped_on_failure():
            hello = await _greet(link)
            if hello is not None:
                return link, await _resume(task, link, hello)
    ended = await asyncio.to_thread(journal.read_exit, str(task.directory))
    if ended is not None:
        return None, ended
    return await _new_worker(task), None


async def _resume(task: RunningTask, link: WorkerLink, hello: Frame) -> ExitRecord | None:
    """Has a living worker watch the task where it does not yet; returns the exit it recorded."""
    link.ready(hello)
    recorded = hello.get("exit")
    if isinstance(recorded, dict):
        return ExitRecord.from_wire(recorded)
    if hello.get("watching") is not True:
        await _watch(task, link)
    return None


async def _living_worker(directory: Path) -> WorkerLink | None:
    try:
        return await worker_link.connect(directory)
    except OSError as error:
        if remedy(error):  # ours, or its socket's queue is full: it says nothing of the worker
            raise exhausted(f"the worker in {directory} cannot be asked", error) from error
        return None


async def _greet(link: WorkerLink) -> Frame | None:
    """What a worker says of itself; None where no version is common and it was told to end."""
    try:
        hello = await link.request(protocol.HELLO, **protocol.STATED)
        protocol.agree(hello)
    except DriverError as error:
        if error.code is not Code.UNSUPPORTED:
            raise
        _log.warning("a worker of another release is replaced", extra={"why": str(error)})
        await teardown.end_worker(link)
        return None
    return hello


async def _new_worker(task: RunningTask) -> WorkerLink | None:
    """One that watches at the shim, if need be while containerd is away; None without a task."""
    state = task.state
    # The shim first: containerd may be away, and 2.1 forgets the exit of a task that ended then.
    sources = ("", "")
    if task.from_go_driver or await _shim(task) is None:
        record = await task.services.containerd.tasks.get(state.container_id)
        if record is None:
            return None
        if task.from_go_driver:
            sources = (record.stdout, record.stderr)
    if task.from_go_driver:
        await task.services.launcher.ensure()  # one of an older release carries no logs on
    await asyncio.to_thread(task.directory.mkdir, mode=0o700, parents=True, exist_ok=True)
    link = await task.services.launcher.fork(
        protocol.WorkerSpec(
            name=state.container_id,
            dir=str(task.directory),
            stdout=state.stdout_path,
            stderr=state.stderr_path,
            log_buffer_bytes=task.services.settings.log_buffer_bytes,
            log_drops=task.services.settings.log_drops,
            stdout_source=sources[0],
            stderr_source=sources[1],
        )
    )
    with link.dropped_on_failure():
        if task.from_go_driver and not link.relays:
            await teardown.end_worker(link)
            raise DriverError(
                "the launcher of task workers is too old to take over a task of the Go driver",
                details=f"it would not carry on the logs of container {state.container_id}",
                resolution="restart nomad-driver-containerd-launcher.service, then the Nomad agent",
                recoverable=True,
                code=Code.UNSUPPORTED,
            )
        _log.info("a new worker looks after the task", extra={"id": state.container_id})
        await _watch(task, link)
    return link


async def _watch(task: RunningTask, link: WorkerLink) -> None:
    shim = await _shim(task)
    if shim is None:
        await teardown.end_worker(link)
        raise DriverError(
            f"the shim of container {task.state.container_id} cannot be found",
            recoverable=True,
            code=Code.UNAVAILABLE,
        )
    await link.request(
        "watch",
        address=shim.address,
        api=shim.api,
        namespace=task.services.namespace,
        container_id=task.state.container_id,
    )


async def _shim(task: RunningTask) -> ShimAddress | None:
    return await task.services.containerd.shim(task.state.container_id, task.state.pid)


def _gone(task_id: str, why: str) -> DriverError:
    return DriverError(
        "task not found for given id",
        details=f"{task_id}: {why}",
        resolution="Nomad starts it again",
        code=Code.NOT_FOUND,
    )
