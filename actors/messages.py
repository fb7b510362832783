"""Messages to the Supervisor. A verb names a request, a past participle names an event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.task.messages import TaskGone, TaskRequest
from proto.values import dataclass

if TYPE_CHECKING:
    from actors.asyncio_bridge import Reply
    from actors.model.nomad import StartedTask, TaskConfig
    from actors.model.settings import DriverSettings, TaskOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Configure:
    """Apply new settings of the driver. Running tasks keep the earlier settings."""

    settings: DriverSettings
    reply: Reply[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTask:
    """Create a TaskActor and start the task."""

    task: TaskConfig
    options: TaskOptions
    reply: Reply[StartedTask]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverTask:
    """Create a TaskActor for a task that an earlier plugin started."""

    task: TaskConfig
    version: int
    driver_state: bytes
    reply: Reply[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForTask:
    """Send a request to the task's actor. Without an actor the request fails with NOT_FOUND."""

    task_id: str
    request: TaskRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyUnknown:
    """Destroy a task by id: through the actor, or by the container's name without an actor."""

    task_id: str
    force: bool
    reply: Reply[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """Answer with the ids of the containers of all tasks."""

    reply: Reply[frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Delay starts and recoveries of this container. False if a task has the container."""

    container: str
    reply: Reply[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclaim:
    """End the claim: the delayed starts and recoveries begin."""

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
