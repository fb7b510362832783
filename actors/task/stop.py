"""Getting a signal to a task, and what a stop does when the task does not follow."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.lifecycle.running import Services
    from actors.processes.worker_link import WorkerLink

KILL_BUDGET_S = 10.0


async def deliver(
    services: Services, link: WorkerLink | None, container_id: str, number: int
) -> None:
    """Sends a signal through the worker, or through containerd without one that can do it.

    The process may end while the signal is on its way; its exit tells that, so it is no failure.

    Raises:
        DriverError: shim and containerd refuse or cannot be reached.
    """
    try:
        if link is not None and not link.closed:
            try:
                await link.request("kill", signal=number, all=False)
            except DriverError as error:
                if error.code not in {Code.UNAVAILABLE, Code.UNSUPPORTED}:
                    raise
            else:
                return
        await services.containerd.tasks.kill(container_id, number, everyone=False)
    except DriverError as error:
        if error.code is not Code.NOT_FOUND:
            raise


class StopLadder:
    """The rungs of a stop: the job's signal for timeout_s, SIGKILL for KILL_BUDGET_S, an error.

    Plain bookkeeping: `send` delivers a signal, `later` has `climb` called with the rung's number.
    """

    def __init__(self, send: Callable[[int], None], later: Callable[[float, int], None]) -> None:
        self._send = send
        self._later = later
        self._rung = 0
        self._killing = False

    def start(self, number: int, timeout_s: float) -> None:
        """Sends the job's signal. Asked again, it starts over with the new signal and time."""
        self._killing = number == signal.SIGKILL
        self._send(number)
        self._next(KILL_BUDGET_S if self._killing else timeout_s)

    def climb(self, rung: int) -> DriverError | None:
        """A rung's time is over: kills, or gives the error that says it does not die."""
        if rung != self._rung:
            return None  # a later stop has taken over
        if self._killing:
            return DriverError(
                "Shutdown failed: the process survives SIGKILL",
                resolution="it is stuck in the kernel: see `ps -o pid,stat,wchan`",
                recoverable=True,
                code=Code.TIMEOUT,
            )
        self._killing = True
        self._send(signal.SIGKILL)
        self._next(KILL_BUDGET_S)
        return None

    def _next(self, seconds: float) -> None:
        self._rung += 1
        self._later(seconds, self._rung)
