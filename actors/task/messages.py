"""Messages to a TaskActor. A verb names a request, a past participle names an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proto.values import dataclass

if TYPE_CHECKING:
    import pykka

    from actors.asyncio_bridge import Reply
    from actors.lifecycle.running import RunningTask
    from actors.model.nomad import ExitResult, StartedTask, TaskStatus
    from actors.model.settings import TaskOptions
    from actors.processes.worker_link import WorkerLink
    from actors.provision.log_ends import LogEnds
    from workers.health.records import HealthState
    from workers.protocol import ExitRecord, LogState


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGone:
    """The TaskActor has ended: no object of the task is left. Goes to the Supervisor."""

    task_id: str
    ref: pykka.ActorRef[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Run the start sequence, which closes the ends of the task's logs."""

    options: TaskOptions
    logs: LogEnds
    reply: Reply[StartedTask]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recover:
    """Run the recover sequence."""

    version: int
    driver_state: bytes
    reply: Reply[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Answer when the task has ended."""

    reply: Reply[ExitResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Signal the task, kill it after timeout_s; answer when it has ended."""

    timeout_s: float
    signal: str
    reply: Reply[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroy:
    """Remove all that belongs to the task."""

    force: bool
    reply: Reply[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspect:
    """Answer with the task's status."""

    reply: Reply[TaskStatus]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Send a signal to the task's first process."""

    signal: str
    reply: Reply[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Locate:
    """Answer with the RunningTask, for exec sessions and stats; None after the task's end."""

    reply: Reply[RunningTask | None]


TaskRequest = Wait | Stop | Destroy | Inspect | Signal | Locate


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A start or recover sequence has ended. After a failure `error` is set and `task` is None."""

    task: RunningTask | None
    error: BaseException | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The worker reports the exit of the task."""

    exit: ExitRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """The worker reports that no byte of the task is left in the log FIFOs."""

    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChanged:
    """The worker reports that a log's reader has stopped, or reads again."""

    state: LogState


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessesKilled:
    """The worker reports the number of processes that the kernel killed for lack of memory."""

    kills: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthChanged:
    """The worker reports a change of the task's health."""

    state: HealthState


WorkerReport = LogChanged | ProcessesKilled | HealthChanged
"""Reports of the worker that change no phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost:
    """The control connection of `link` ended."""

    link: WorkerLink


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRestored:
    """An attempt to restore the worker has ended: a new link, or the error."""

    link: WorkerLink | None
    error: BaseException | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopDeadline:
    """The time of one step of a stop is over; `step` is the step's number."""

    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalFailed:
    """A signal of a stop could not be sent."""

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroyed:
    """The removal has ended; `error` is None after success."""

    error: BaseException | None


TaskMessage = (
    Begin
    | Recover
    | TaskRequest
    | Started
    | Exited
    | Drained
    | WorkerReport
    | WorkerLost
    | WorkerRestored
    | StopDeadline
    | SignalFailed
    | Destroyed
)
