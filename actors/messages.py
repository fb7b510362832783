"""Everything that actors say to each other. Verbs are requests, past participles are events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.task.messages import TaskGone, TaskRequest

if TYPE_CHECKING:
    from actors.asyncio_bridge import Reply
    from actors.model.nomad import StartedTask, TaskConfig
    from actors.model.settings import DriverSettings, TaskOptions


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


# --- to the EventActor


# --- to the ImageActor
