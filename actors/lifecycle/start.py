"""Starts a task: the checks before the first step, the wait for the image, and the attempts.

The image is looked up while the job is checked, and pulled after the check. `preparation` checks
the job against the node. `attempt` has the steps, `undo` takes them back. A start that finds
objects of an earlier start removes them, and tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING

from actors.asyncio_bridge import Reply, tell
from actors.events import Publish
from actors.images.messages import (
    EnsureImage,
    ImageReady,
    ImageRequest,
    LeaveImage,
    PullPolicy,
    TaskIdentity,
)
from actors.images.request import request as image_request
from actors.lifecycle import preparation, teardown
from actors.lifecycle.attempt import Attempt
from actors.lifecycle.retry import retry
from actors.model.nomad import StartedTask, TaskConfig, TaskEvent
from actors.step_log import StepLog
from containerd.security import apparmor
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from actors.lifecycle.plan import Preparation
    from actors.lifecycle.running import RunningTask, Services
    from actors.model.settings import TaskOptions
    from actors.provision.log_ends import LogEnds

Ask = Callable[[ImageRequest], asyncio.Future[ImageReady]]
_LONGEST_REASON = 4096
_PAUSES_S = (0.0, 0.2, 1.0)
_log = logging.getLogger(__name__)


async def start(
    services: Services, task: TaskConfig, options: TaskOptions, logs: LogEnds
) -> tuple[RunningTask, StartedTask]:
    """Starts a task; returns when the task's process runs.

    Args:
        services: the plugin's services.
        task: Nomad's description of the task.
        options: the job's options.
        logs: the plugin's own ends of the task's log FIFOs; closed when the start has ended.

    Raises:
        DriverError: the failure of a step; every step before the failed one is undone.
    """
    with contextlib.closing(logs):
        return await _start(services, task, options, logs)


async def _start(
    services: Services, task: TaskConfig, options: TaskOptions, logs: LogEnds
) -> tuple[RunningTask, StartedTask]:
    def report(note: str) -> None:
        tell(services.events, Publish(event=TaskEvent.now(task, note)))

    async with contextlib.AsyncExitStack() as use:
        ask = await use.enter_async_context(_image_use(services, task))
        early = _early_lookup(services, task, options, ask)
        prepared = await preparation.prepare(services, task, options, report)
        use.callback(prepared.shared.close)
        _warn(task, prepared.plan.warnings, report)
        await preparation.check_holes(services, prepared)
        if prepared.plan.security.apparmor_profile == apparmor.NAME:
            await services.apparmor.loaded()
        for note in prepared.parts.notes:
            report(note)
        image = asyncio.ensure_future(_image(prepared.plan.image, early, ask))
        image.add_done_callback(_seen)
        try:
            return await _attempts(services, prepared, image, logs)
        finally:
            image.cancel()


def _warn(task: TaskConfig, warnings: tuple[str, ...], report: Callable[[str], None]) -> None:
    """Reports the options without effect, in one event and one line of the log."""
    if warnings:
        reason = "; ".join(warnings)
        if len(reason) > _LONGEST_REASON:  # the job decides the number, and Nomad keeps the event
            reason = f"{reason[:_LONGEST_REASON]}…"
        _log.warning("options have no effect", extra={"task_id": task.id, "reason": reason})
        report(f"options without effect: {reason}")


async def _attempts(
    services: Services, prepared: Preparation, image: asyncio.Future[ImageReady], logs: LogEnds
) -> tuple[RunningTask, StartedTask]:
    task = prepared.task
    container_id = prepared.plan.container_id
    log = StepLog(
        _log,
        "Nomad starts the task",
        container_id=container_id,
        task_id=task.id,
        alloc_id=task.alloc_id,
    )
    log("job checked")
    await services.releases.finished(container_id)

    async def remove_leftovers(error: DriverError) -> None:
        # An earlier start of the same task was cut short; containerd may still work on that start.
        if error.code is not Code.ALREADY_EXISTS:
            raise error
        log.warning("objects of an earlier start are removed", reason=str(error))
        await teardown.remove(services, container_id, link=None, reason="left by an earlier start")

    try:
        return await retry(
            _PAUSES_S,
            lambda: Attempt(services, prepared, image, logs, log).run(),
            remove_leftovers,
        )
    except DriverError as error:
        if error.code is Code.ALREADY_EXISTS:
            error.recoverable = True
        log("start failed", reason=str(error))
        raise


def _seen(ended: asyncio.Future[ImageReady]) -> None:
    """Reads the failure of a future: a start can end before the start awaits the future."""
    if not ended.cancelled():
        ended.exception()


@contextlib.asynccontextmanager
async def _image_use(services: Services, task: TaskConfig) -> AsyncGenerator[Ask, None]:
    """Yields a function that requests an image, and keeps the image from collection in the block.

    After the block a container refers to the image, or the start has failed.
    """
    identity = TaskIdentity(task_id=task.id, alloc_id=task.alloc_id, task_name=task.name)
    replies: list[Reply[ImageReady]] = []

    def ask(request: ImageRequest) -> asyncio.Future[ImageReady]:
        reply: Reply[ImageReady] = Reply()
        replies.append(reply)
        reply.future.add_done_callback(_seen)
        tell(services.images, EnsureImage(request=request, task=identity, reply=reply))
        return reply.future

    try:
        yield ask
    finally:
        for reply in replies:
            tell(services.images, LeaveImage(reply=reply))


def _early_lookup(
    services: Services, task: TaskConfig, options: TaskOptions, ask: Ask
) -> asyncio.Future[ImageReady] | None:
    """Looks up the image while the job is checked. Never pulls: the job may be refused.

    Returns None where the registry is asked in any case, and for a faulty job.
    """
    try:
        wanted = image_request(services, task, options)
    except DriverError:
        return None  # the check refuses the job
    if wanted.archive is not None or wanted.policy in {PullPolicy.ALWAYS, PullPolicy.FRESH}:
        return None
    return ask(dataclasses.replace(wanted, policy=PullPolicy.NEVER))


async def _image(
    request: ImageRequest, early: asyncio.Future[ImageReady] | None, ask: Ask
) -> ImageReady:
    """Returns the image of the early look-up, else the image as the job's policy wants."""
    if early is not None:
        try:
            return await early
        except DriverError as error:
            if error.recoverable:  # containerd does not answer; a second question would wait again
                raise
    return await ask(request)
