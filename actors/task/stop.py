"""Delivery of signals to a task, and the steps of a stop when the task ignores the signal."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

from actors.lifecycle.cgroup import cgroup_path
from actors.model import signal_names
from actors.model.log_keys import elapsed_ms
from actors.task import runtime_inits
from proto.errors import Code, DriverError
from workers import protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.lifecycle.running import RunningTask, Services
    from actors.model.nomad import TaskConfig
    from actors.processes.worker_link import WorkerLink
    from actors.task.reports import TaskReports

KILL_BUDGET_S = 10.0


async def deliver(
    running: RunningTask,
    link: WorkerLink | None,
    task: TaskConfig,
    number: int,
    reports: TaskReports,
    *,
    stops: bool = False,
) -> None:
    """Sends a signal to a task's first process.

    The worker sends the signal without containerd. Without a worker, or with a worker that cannot
    send signals, containerd is asked. The process may end while the signal is on the way. The exit
    reports such an end, so the function does not fail then.

    Args:
        running: the task's container, and the services in its containerd namespace.
        link: connection to the task's worker, or None.
        task: Nomad's description of the task.
        number: number of the signal, 1 to 64. `signal_names.number` converts a name.
        reports: reports of the task.
        stops: True for a signal of a stop, after which no more health checks begin.

    Raises:
        DriverError: shim and containerd refuse the signal or do not answer.
    """
    begun = time.monotonic()
    services, container_id = running.services, running.state.container_id
    if stops and number == signal.SIGKILL:
        v2 = services.cgroup_v2
        cgroup = cgroup_path(task.resources, container_id, services.namespace, cgroup_v2=v2)
        await asyncio.to_thread(runtime_inits.kill, cgroup)
    sender = await _send(services, link, container_id, number, stops=stops)
    text = "signal sent to task" if sender else "signal not sent: the task has ended"
    reports.step(
        text, signal=signal_names.name(number), sender=sender, elapsed_ms=elapsed_ms(begun)
    )


async def _send(
    services: Services, link: WorkerLink | None, container_id: str, number: int, *, stops: bool
) -> str:
    """Sends the signal. Returns the sender, or "" if the process has ended."""
    try:
        if link is not None and not link.closed:
            try:
                fields = {"signal": number, "all": False, protocol.STOPS: stops}
                await link.request(protocol.KILL, **fields)
            except DriverError as error:
                if error.code not in {Code.UNAVAILABLE, Code.UNSUPPORTED}:
                    raise
            else:
                return "worker"
        await services.containerd.tasks.kill(container_id, number, everyone=False)
    except DriverError as error:
        if error.code is not Code.NOT_FOUND:
            raise
        return ""
    return "containerd"


class StopSequence:
    """Steps of a stop: the job's signal for timeout_s, SIGKILL for KILL_BUDGET_S, an error.

    The class does no I/O.

    Args:
        send: sends a signal, by number, to the task.
        call_later: calls `advance` with the step's number after so many seconds.
    """

    def __init__(
        self, send: Callable[[int], None], call_later: Callable[[float, int], None]
    ) -> None:
        self._send = send
        self._call_later = call_later
        self._step = 0
        self._killing = False

    def start(self, number: int, timeout_s: float) -> None:
        """Sends the job's signal. A second call starts again with the new signal and timeout."""
        self._killing = number == signal.SIGKILL
        self._send(number)
        self._schedule(KILL_BUDGET_S if self._killing else timeout_s)

    def advance(self, step: int) -> DriverError | None:
        """Ends a step whose time has passed: sends SIGKILL, or returns the error of the stop.

        A step that a later `start` has replaced changes nothing.
        """
        if step != self._step:
            return None
        if self._killing:
            return DriverError(
                "Shutdown failed: the process survives SIGKILL",
                resolution="the process is stuck in the kernel: see `ps -o pid,stat,wchan`",
                recoverable=True,
                code=Code.TIMEOUT,
            )
        self._killing = True
        self._send(signal.SIGKILL)
        self._schedule(KILL_BUDGET_S)
        return None

    def _schedule(self, seconds: float) -> None:
        self._step += 1
        self._call_later(seconds, self._step)
