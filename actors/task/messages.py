"""Messages to a TaskActor. Verbs are requests, past participles are events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pykka

    from actors.asyncio_bridge import Reply
    from actors.lifecycle.running import RunningTask
    from actors.model.nomad import ExitResult, StartedTask, TaskStatus
    from actors.model.settings import TaskOptions
    from actors.processes.worker_link import WorkerLink
    from actors.provision.log_ends import LogEnds
    from workers.protocol import ExitRecord, LogState


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGone:
    """A TaskActor has nothing left to look after."""

    task_id: str
    ref: pykka.ActorRef[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Run the start sequence, which releases the ends of the task's logs."""

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
    """Tell what is known of the task."""

    reply: Reply[TaskStatus]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Send a signal to the task's first process."""

    signal: str
    reply: Reply[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Locate:
    """Hand out what an exec session or a stats stream needs; None once the task has ended."""

    reply: Reply[RunningTask | None]


TaskRequest = Wait | Stop | Destroy | Inspect | Signal | Locate


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A start or recover sequence has ended: `task`, or the error after everything was undone."""

    task: RunningTask | None
    error: BaseException | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The worker reports the exit of the task."""

    exit: ExitRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """The worker reports that the log FIFOs have all that the task wrote."""

    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChanged:
    """The worker reports that a log is not read any more, or is read again."""

    state: LogState


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessesKilled:
    """The worker reports how many processes the kernel has killed for want of memory so far."""

    kills: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost:
    """The control connection of `link` ended."""

    link: WorkerLink


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRestored:
    """A new link to the task's worker, or why there is none yet."""

    link: WorkerLink | None
    error: BaseException | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopDeadline:
    """The time that the task had to follow a signal is over."""

    rung: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalFailed:
    """A signal that a stop sent could not be delivered."""

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroyed:
    """The teardown has ended."""

    error: BaseException | None


TaskMessage = (
    Begin
    | Recover
    | TaskRequest
    | Started
    | Exited
    | Drained
    | LogChanged
    | ProcessesKilled
    | WorkerLost
    | WorkerRestored
    | StopDeadline
    | SignalFailed
    | Destroyed
)
