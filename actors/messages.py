"""Everything that actors say to each other. Verbs are requests, past participles are events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    import pykka

    from actors.bridge import Reply
    from actors.image_wire import ImageReady, ImageRequest, TaskIdentity
    from actors.log_ends import LogEnds
    from actors.model.nomad import ExitResult, StartedTask, TaskConfig, TaskEvent, TaskStatus
    from actors.model.settings import DriverSettings, TaskOptions
    from actors.running_task import RunningTask
    from actors.worker_link import WorkerLink
    from workers.wire import ExitRecord, LogState


# --- to the Supervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class Configure:
    """New settings of the driver; tasks that run keep what they have."""

    settings: DriverSettings
    reply: Reply[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTask:
    """Make a TaskActor and start its task."""

    task: TaskConfig
    options: TaskOptions
    reply: Reply[StartedTask]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverTask:
    """Make a TaskActor for a task that an earlier plugin started."""

    task: TaskConfig
    version: int
    driver_state: bytes
    reply: Reply[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForTask:
    """Pass a request on to the task's actor; NOT_FOUND to its reply when there is none."""

    task_id: str
    request: TaskRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyUnknown:
    """Destroy a task by its id: through its actor, or by name when no actor knows it."""

    task_id: str
    force: bool
    reply: Reply[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGone:
    """A TaskActor has nothing left to look after."""

    task_id: str
    ref: pykka.ActorRef[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """Tell the ids of the containers of all tasks that there are."""

    reply: Reply[frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Let no start or recovery of this container begin; False where a task has it already."""

    container: str
    reply: Reply[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclaim:
    """The claim is over; what waited for it begins."""

    container: str


SupervisorMessage = (
    Configure
    | StartTask
    | RecoverTask
    | ForTask
    | DestroyUnknown
    | TaskGone
    | Track
    | Claim
    | Unclaim
)

# --- to a TaskActor


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

# --- to the EventActor


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Give an event to every subscriber."""

    event: TaskEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe:
    """From now on put events into `queue`, which belongs to `loop`."""

    queue: asyncio.Queue[TaskEvent]
    loop: asyncio.AbstractEventLoop


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe:
    """Forget `queue`."""

    queue: asyncio.Queue[TaskEvent]


EventMessage = Publish | Subscribe | Unsubscribe

# --- to the ImageActor


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureImage:
    """Have an image unpacked and say so; the pull's progress goes to the task's events."""

    request: ImageRequest
    task: TaskIdentity
    reply: Reply[ImageReady]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveImage:
    """A waiter went away, or its container holds the image now.

    The last one to leave a pull cancels it; an image that nobody holds may be collected.
    """

    reply: Reply[ImageReady]


@dataclass(frozen=True, slots=True, kw_only=True)
class PullProgressed:
    """The puller has news."""

    request: ImageRequest
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PullEnded:
    """The pull with this number is done."""

    request: ImageRequest
    number: int
    ready: ImageReady | None
    error: BaseException | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesUnused:
    """A sweep found these images to be due for removal."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRemoved:
    """A removal is done, or failed."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    """Another configuration has its own ImageActor: collect no more images."""


ImageMessage = (
    EnsureImage | LeaveImage | PullProgressed | PullEnded | ImagesUnused | ImageRemoved | Retire
)
