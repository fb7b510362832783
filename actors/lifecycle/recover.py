"""Recovers a task of an earlier plugin, or declares the task gone when none of its objects is left.

`attach` also gives a task a new worker when the worker dies under a living plugin.
"""

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
from actors.lifecycle.running import RunningTask, Services, watch, worker_spec
from actors.processes import worker_link
from actors.processes.worker_link import WorkerLink
from actors.provision import netns
from actors.step_log import StepLog
from proto.errors import Code, DriverError
from proto.exhaustion import advice, exhausted
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
    """Recovers a task: running with a worker, or ended with the exit.

    Args:
        services: the plugin's services.
        task: Nomad's description of the task.
        version: the version of the handle.
        driver_state: the driver's bytes in the handle.

    Raises:
        DriverError: code NOT_FOUND after the removal of all objects: neither the task nor a record
            of the exit exists. Other codes when the state of the task cannot be determined, or the
            handle belongs to another task; then nothing was changed.
    """
    await asyncio.to_thread(private_directory.check, str(services.state_dir))
    running = await _read_handle(services, task, version, driver_state)
    services, state = running.services, running.state
    log = _step_log(running, "Nomad recovers the task")
    log("handle read")
    if state.boot_id != services.boot_id:
        await _clean_up(running, task)
        log("task gone", reason="the machine was restarted")
        raise _gone(task.id, "the machine was restarted since the task ran")
    link, exit_record = await _attach(running, log)
    if link is None and exit_record is None:
        await _clean_up(running, task)
        log("task gone", reason="neither a task nor an exit record exists")
        raise _gone(task.id, "containerd knows no such task, and no record of its exit exists")
    with link.dropped_on_failure() if link is not None else contextlib.nullcontext():
        if running.from_go_driver and exit_record is None:
            await go_takeover.begin(services, state.container_id)
        network = await asyncio.to_thread(_network, task) if task.network is not None else None
    log("task recovered")
    return dataclasses.replace(running, link=link, exit=exit_record, network=network)


def _step_log(running: RunningTask, reason: str) -> StepLog:
    return StepLog(
        _log,
        reason,
        container_id=running.state.container_id,
        task_id=running.task_id,
        alloc_id=running.alloc_id,
    )


def container_id(version: int, driver_state: bytes) -> str:
    """Returns the container that a handle names.

    Raises:
        DriverError: the handle cannot be read.
    """
    if version == go_handle.VERSION:
        return GoHandle.decode(driver_state).container_id
    return HandleState.decode(version, driver_state).container_id


async def _read_handle(
    services: Services, task: TaskConfig, version: int, driver_state: bytes
) -> RunningTask:
    """Returns the task as the handle describes it, not yet connected to a worker."""
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
        task_id=task.id,
        alloc_id=task.alloc_id,
        directory=task_directory(services.state_dir, state.container_id),
        link=None,
        from_go_driver=from_go_driver,
        nomad_namespace=task.namespace,
    )


async def _clean_up(running: RunningTask, task: TaskConfig) -> None:
    state = running.state
    if not running.from_go_driver:
        record = await running.services.containerd.containers.get(state.container_id)
        check_container(task, record)
    await teardown.remove(
        running.services,
        state.container_id,
        link=None,
        reason="the task cannot be recovered",
        snapshotter=state.snapshotter,
    )
    if running.from_go_driver:
        await go_takeover.remove_traces(task, state.container_id)


def _network(task: TaskConfig) -> NetworkOverride | None:
    """Returns the task's own address as at the start; None where the namespace is gone."""
    if task.network is None:
        return None
    try:
        return netns.override(task, netns.inspect(task.network.path))
    except DriverError:
        return None


async def attach(task: RunningTask) -> tuple[WorkerLink | None, ExitRecord | None]:
    """Connects to the task's worker, or creates a new worker where the old one is gone.

    Returns:
        The link, and the exit where one is recorded. (None, None) means that the task does not
        exist any more and left no record.

    Raises:
        DriverError: containerd or the launcher gives no answer now.
    """
    return await _attach(task, _step_log(task, "the task's worker is gone"))


async def _attach(task: RunningTask, log: StepLog) -> tuple[WorkerLink | None, ExitRecord | None]:
    link = await _living_worker(task.directory)
    if link is not None:
        with link.dropped_on_failure():
            hello = await _greet(link, log)
            if hello is not None:
                log("worker found")
                return link, await _resume(task, link, hello)
    ended = await asyncio.to_thread(journal.read_exit, str(task.directory))
    if ended is not None:
        log("exit record read")
        # The last lines may be in the FIFO still, where only a worker collects them.
        return await _fork(task, log) if task.state.log.has_collector else None, ended
    return await _new_worker(task, log), None


async def _resume(task: RunningTask, link: WorkerLink, hello: Frame) -> ExitRecord | None:
    """Makes a living worker watch the task if it does not yet; returns a recorded exit."""
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
        # The plugin's limits, or a full queue of the socket: the worker may well be alive.
        if advice(error):
            raise exhausted(f"cannot connect to the worker in {directory}", error) from error
        return None


async def _greet(link: WorkerLink, log: StepLog) -> Frame | None:
    """Returns the worker's description of itself; None where no version is common.

    A worker of such a release is ended, so that a new one can take its place.
    """
    try:
        hello = await link.request(protocol.HELLO, **protocol.STATED)
        protocol.agree(hello)
    except DriverError as error:
        if error.code is not Code.UNSUPPORTED:
            raise
        log.warning("a worker of another release is replaced", reason=str(error))
        await teardown.end_worker(link)
        return None
    return hello


async def _new_worker(task: RunningTask, log: StepLog) -> WorkerLink | None:
    """Returns a new worker that waits at the shim; None where the task does not exist.

    The shim is searched first: containerd may be away, and containerd 2.1 forgets the exit of a
    task that ended meanwhile.
    """
    services, state = task.services, task.state
    sources = ("", "")
    if task.from_go_driver or await services.containerd.shim(state.container_id, state.pid) is None:
        record = await services.containerd.tasks.get(state.container_id)
        if record is None:
            return None
        if task.from_go_driver:
            sources = (record.stdout, record.stderr)
    if task.from_go_driver:
        await services.launcher.ensure()  # the launcher of an older release relays no logs
    link = await _fork(task, log, sources)
    with link.dropped_on_failure():
        if task.from_go_driver and not link.relays:
            await teardown.end_worker(link)
            raise DriverError(
                "the launcher of task workers is too old to take over a task of the Go driver",
                details="this launcher version cannot take over the logs of container"
                f" {state.container_id}",
                resolution="restart nomad-driver-containerd-launcher.service, then the Nomad agent",
                recoverable=True,
                code=Code.UNSUPPORTED,
            )
        _log.info(
            "new worker for a running task",
            extra={"task_id": task.task_id, "container_id": state.container_id},
        )
        await _watch(task, link)
        log("worker waits for the exit")
    return link


async def _fork(task: RunningTask, log: StepLog, sources: tuple[str, str] = ("", "")) -> WorkerLink:
    """Returns a new worker, which collects or keeps the logs at once.

    Args:
        task: the task.
        log: gets a line.
        sources: the shim's FIFOs of a task of the Go driver.
    """
    services, state = task.services, task.state
    await asyncio.to_thread(task.directory.mkdir, mode=0o700, parents=True, exist_ok=True)
    spec = worker_spec(
        services,
        state.container_id,
        task.directory,
        state.log,
        (state.stdout_path, state.stderr_path),
        stdout_source=sources[0],
        stderr_source=sources[1],
    )
    link = await services.launcher.fork(spec)
    log("worker forked")
    return link


async def _watch(task: RunningTask, link: WorkerLink) -> None:
    services, state = task.services, task.state
    kernel = state.host_kernel
    if not await watch(services, state.container_id, state.pid, link, host_kernel=kernel):
        await teardown.end_worker(link)
        raise DriverError(
            f"the shim of container {task.state.container_id} cannot be found",
            recoverable=True,
            code=Code.UNAVAILABLE,
        )


def _gone(task_id: str, why: str) -> DriverError:
    return DriverError(
        "task not found for given id",
        details=f"{task_id}: {why}",
        resolution="Nomad starts it again",
        code=Code.NOT_FOUND,
    )
