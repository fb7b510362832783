"""What is asked of the ImageActor and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.asyncio_bridge import Reply
    from actors.model.settings import Auth
    from containerd.image.config import ImageConfig
    from containerd.pull.protocol import Archive

from typing import TYPE_CHECKING


class PullPolicy(StrEnum):
    """When a registry is asked."""

    ALWAYS = "always"
    FRESH = "fresh"  # each time, but where the registry is away the present image will do
    MISSING = "missing"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """An image that a task needs.

    written is the job's text, name the normalised reference. Two requests that are equal share
    one pull; credentials are part of that, so that nobody gets an image by another's password.
    """

    written: str = field(compare=False)
    name: str
    snapshotter: str
    timeout_s: float
    auth: Auth | None
    policy: PullPolicy
    auth_soft_fail: bool = False
    archive: Archive | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReady:
    """An image that is unpacked. chain_id is the committed snapshot to build on."""

    name: str
    digest: str
    chain_id: str
    config: ImageConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskIdentity:
    """Whose event list a pull's progress goes to."""

    task_id: str
    alloc_id: str
    task_name: str


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
