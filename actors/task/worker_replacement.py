"""Replacement of a worker that died while its task runs."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from actors.asyncio_bridge import spawn
from actors.lifecycle.recover import attach
from actors.task.messages import Exited, WorkerRestored
from actors.task.status import vanished

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.lifecycle.running import RunningTask
    from actors.processes.worker_link import WorkerLink
    from actors.task.reports import TaskReports
    from workers.protocol import ExitRecord

_RETRY_S = 1.0
_STEADY_S = 60.0
"""A worker that lives shorter is replaced after a pause: the cause may end the next worker too."""
_log = logging.getLogger(__name__)


class WorkerReplacement:
    """Starts new workers for one task. Belongs to the task's actor.

    Args:
        reports: reports of the task.
        listen: uses a new link.
        send: sends a message to the actor.
    """

    def __init__(
        self,
        reports: TaskReports,
        listen: Callable[[WorkerLink], None],
        send: Callable[[Exited | WorkerRestored], None],
    ) -> None:
        self._reports = reports
        self._listen = listen
        self._send = send
        self._restored_at = -_STEADY_S

    def lost(self, running: RunningTask) -> None:
        """Starts the replacement of a worker whose connection ended."""
        lived_s = time.monotonic() - self._restored_at
        pause_s = 0.0 if lived_s >= _STEADY_S else _RETRY_S
        _log.warning(
            "worker lost, starting a new worker", extra={**self._reports.keys, "pause_s": pause_s}
        )
        self._start(running, pause_s)

    def restored(self, link: WorkerLink) -> None:
        """Takes the link to the new worker into use."""
        self._restored_at = time.monotonic()
        self._reports.step("worker restored")
        self._listen(link)

    def failed(self, running: RunningTask, error: BaseException) -> None:
        """Starts the next attempt after a failed attempt."""
        self._reports.failed("worker not restored, trying again", error)
        self._start(running, _RETRY_S)

    def _start(self, running: RunningTask, pause_s: float) -> None:
        async def work() -> tuple[WorkerLink | None, ExitRecord | None]:
            await asyncio.sleep(pause_s)
            return await attach(running)

        def done(
            result: tuple[WorkerLink | None, ExitRecord | None] | None,
            error: BaseException | None,
        ) -> None:
            link, exit_record = result or (None, None)
            if result is not None and (exit_record is not None or link is None):
                self._send(Exited(exit=exit_record or vanished()))
            self._send(WorkerRestored(link=link, error=error))

        spawn(running.services.loop, work(), done)
