"""Removal of a task: waits for the logs, kills the process, removes container, worker and files."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from actors.lifecycle import go_takeover, teardown
from actors.lifecycle.cgroup import restore_cgroup
from actors.lifecycle.retry import Retry
from actors.model.log_keys import elapsed_ms, task_keys
from containerd.api import deadlines

if TYPE_CHECKING:
    from actors.lifecycle.running import RunningTask, Services
    from actors.model.nomad import TaskConfig
    from actors.processes.worker_link import WorkerLink

_DRAIN_BUDGET_S = 3.0
_REMOVAL_S = 60.0
_log = logging.getLogger(__name__)


async def remove_task(
    task: TaskConfig, running: RunningTask, link: WorkerLink | None, *, ended: bool, drained: bool
) -> None:
    """Removes a task whose container exists.

    Args:
        task: Nomad's description of the task.
        running: names of the task's objects.
        link: connection to the task's worker, or None.
        ended: True if the exit is known; otherwise the process is killed.
        drained: True if the log FIFOs contain no bytes of the task any more.

    Raises:
        DriverError: an object of the task is left; the text names the object.
    """
    services, state, begun = running.services, running.state, time.monotonic()
    keys = {**task_keys(task), "container_id": state.container_id}
    if link is not None and not link.closed:
        if ended and not drained:
            _log.debug("waiting until the logs of the task are read", extra=keys)
            await teardown.until_drained(link, _DRAIN_BUDGET_S)
        if not ended:
            _log.debug("killing the task before its removal", extra=keys)
            await teardown.kill(link)
    with deadlines.within(_REMOVAL_S):
        await Retry()(
            lambda: teardown.remove(
                services,
                state.container_id,
                link=link,
                reason="Nomad destroys the task",
                snapshotter=state.snapshotter,
            )
        )
    if running.from_go_driver:
        await go_takeover.remove_traces(task, state.container_id)
        _log.debug("files of the Go driver removed", extra=keys)
    await restore_cgroup(task.resources, cgroup_v2=services.cgroup_v2)
    _log.debug("task removed", extra={**keys, "elapsed_ms": elapsed_ms(begun)})


async def remove_unrecovered(services: Services, task: TaskConfig) -> None:
    """Removes a task that could not be recovered.

    The handle did not name the container, so the container's name is built from the task's id.

    Raises:
        DriverError: an object of the task is left.
    """
    begun = time.monotonic()
    with deadlines.within(_REMOVAL_S):
        await Retry()(lambda: go_takeover.remove_unknown(services, task.id))
    await restore_cgroup(task.resources, cgroup_v2=services.cgroup_v2)
    _log.debug(
        "task without a usable handle removed",
        extra={**task_keys(task), "elapsed_ms": elapsed_ms(begun)},
    )
