"""Starts a task: the checks before the first step, the wait for the image, and the attempts.

`preparation` checks the job against the node. `attempt` has the steps, `undo` takes them back. A
start that finds objects of an earlier start removes them, and tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from actors.asyncio_bridge import Reply, tell
from actors.events import Publish
from actors.images.messages import EnsureImage, ImageReady, ImageRequest, LeaveImage, TaskIdentity
from actors.lifecycle import preparation, teardown
from actors.lifecycle.attempt import Attempt
from actors.lifecycle.retry import retry
from actors.model.nomad import StartedTask, TaskConfig, TaskEvent
from actors.step_log import StepLog
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from actors.lifecycle.running import RunningTask, Services
    from actors.model.settings import TaskOptions
    from actors.provision.log_ends import LogEnds

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

    prepared = await preparation.prepare(services, task, options, report)
    for note in prepared.parts.notes:
        report(note)
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

    async with _image(services, task, prepared.plan.image) as image:
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


@contextlib.asynccontextmanager
async def _image(
    services: Services, task: TaskConfig, request: ImageRequest
) -> AsyncGenerator[asyncio.Future[ImageReady], None]:
    """Requests the image, and keeps the image from collection inside the block.

    After the block a container refers to the image, or the start has failed.
    """
    reply: Reply[ImageReady] = Reply()
    identity = TaskIdentity(task_id=task.id, alloc_id=task.alloc_id, task_name=task.name)
    tell(services.images, EnsureImage(request=request, task=identity, reply=reply))
    try:
        yield reply.future
    finally:
        tell(services.images, LeaveImage(reply=reply))
