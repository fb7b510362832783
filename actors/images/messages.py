"""Messages to the ImageActor, and the values in the messages."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from typing import TYPE_CHECKING

from proto.values import dataclass

if TYPE_CHECKING:
    from actors.asyncio_bridge import Reply
    from actors.model.settings import Auth
    from containerd.image.config import ImageConfig
    from containerd.pull.protocol import Archive


class PullPolicy(StrEnum):
    """Times at which a pull asks the registry."""

    ALWAYS = "always"
    FRESH = "fresh"  # at each start; a present image is used if the registry does not answer
    MISSING = "missing"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """Request for an image.

    Equal requests share a pull. Credentials are part of the comparison, so no task gets an image
    by another task's password.

    Attributes:
        written: the image's name in the job.
        name: the normalised reference.
        snapshotter: snapshotter for the unpacked image.
        timeout_s: seconds until the pull fails.
        auth: the job's credentials.
        policy: see `PullPolicy`.
        auth_soft_fail: True pulls without credentials if the operator's source fails.
        archive: the archive to load; None pulls from a registry.
        platform: the job's platform, normalised; empty for this machine's.
    """

    written: str = field(compare=False)
    name: str
    snapshotter: str
    timeout_s: float
    auth: Auth | None
    policy: PullPolicy
    auth_soft_fail: bool = False
    archive: Archive | None = None
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReady:
    """An unpacked image. `chain_id` is the name of the committed snapshot below the task's."""

    name: str
    digest: str
    chain_id: str
    config: ImageConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskIdentity:
    """The task whose event list receives a pull's progress."""

    task_id: str
    alloc_id: str
    task_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureImage:
    """Provide an unpacked image. The progress of a pull goes to the task's events."""

    request: ImageRequest
    task: TaskIdentity
    reply: Reply[ImageReady]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveImage:
    """A start ends its use of an image: the start has failed, or a container uses the image now.

    A pull without any waiting start is cancelled. An image without any use may be removed.
    """

    reply: Reply[ImageReady]


@dataclass(frozen=True, slots=True, kw_only=True)
class PullProgressed:
    """The puller reports progress."""

    request: ImageRequest
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PullEnded:
    """The pull with this number has ended."""

    request: ImageRequest
    number: int
    ready: ImageReady | None
    error: BaseException | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesUnused:
    """A sweep has found images to remove."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRemoved:
    """A removal has ended, with or without success."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    """Remove no more images: a new configuration has another ImageActor."""


ImageMessage = (
    EnsureImage | LeaveImage | PullProgressed | PullEnded | ImagesUnused | ImageRemoved | Retire
)
