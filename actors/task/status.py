"""Conversions from a task's phase and exit record to the values that Nomad receives."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

from actors.model.nomad import ExitResult, TaskState, TaskStatus
from actors.task.phases import Phase
from proto.errors import Code, DriverError
from workers.protocol import ExitRecord

if TYPE_CHECKING:
    from actors.lifecycle.running import RunningTask
    from actors.model.nomad import TaskConfig

_SIGNAL_BASE = 128
_HIGHEST_SIGNAL = 64
_NOMAD_STATE = {
    Phase.RUNNING: TaskState.RUNNING,
    Phase.STOPPING: TaskState.RUNNING,
    Phase.EXITED: TaskState.EXITED,
    Phase.DESTROYING: TaskState.EXITED,
    Phase.GONE: TaskState.EXITED,
}


def not_found(task_id: str) -> DriverError:
    """Builds the error for an unknown task id, in Nomad's words."""
    return DriverError("task not found for given id", details=task_id[:200], code=Code.NOT_FOUND)


def start_error(error: BaseException | None) -> BaseException:
    """Returns the failure of a start; a cancelled start gets an error of the driver."""
    if isinstance(error, asyncio.CancelledError) or error is None:
        return DriverError(
            "the start was cancelled",
            details="the task was stopped during the start",
            code=Code.CANCELLED,
        )
    return error


def vanished() -> ExitRecord:
    """Builds the exit record of a task that containerd lost before any process recorded the exit.

    The code is 137, the code of a task that SIGKILL ended: the real code is unknown.
    """
    return ExitRecord(
        code=_SIGNAL_BASE + signal.SIGKILL,
        at_ns=time.time_ns(),
        oom_kills=0,
        lost=True,
        reason="containerd has no such task any more and nothing recorded its exit",
    )


def exit_result(record: ExitRecord) -> ExitResult:
    """Returns code, signal and out-of-memory flag of a task that ended.

    The runtime reports death by signal n as 128 + n. A worker of release 1.1 and before does not
    decide if a kill for lack of memory ended the task. For such a worker the code alone decides.
    """
    number = record.code - _SIGNAL_BASE
    oom_killed = record.oom_killed
    if oom_killed is None:
        oom_killed = record.oom_kills > 0 and number == signal.SIGKILL
    return ExitResult(
        exit_code=record.code,
        signal=number if 0 < number <= _HIGHEST_SIGNAL else 0,
        oom_killed=oom_killed,
        error=record.reason,
    )


def task_status(
    task: TaskConfig,
    phase: Phase,
    running: RunningTask | None,
    ended: ExitRecord | None,
    health: str = "",
) -> TaskStatus:
    """Returns the answer to InspectTask.

    Args:
        task: Nomad's description of the task.
        phase: the task's phase.
        running: names and times of the container; None before the start has ended.
        ended: the exit record; None before the exit.
        health: status of the task's health check; empty without a check.
    """
    attributes = {"health": health} if health else {}
    state = running.state if running else None
    return TaskStatus(
        id=task.id,
        name=task.name,
        state=_NOMAD_STATE.get(phase, TaskState.UNKNOWN),
        started_at_ns=state.started_at_ns if state else 0,
        completed_at_ns=ended.at_ns if ended else 0,
        result=exit_result(ended) if ended else ExitResult(exit_code=0),
        driver_attributes={"containerName": state.container_id, **attributes} if state else {},
        network=running.network if running else None,
    )
