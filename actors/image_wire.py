"""What is asked of the ImageActor and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.model.settings import Auth
    from containerd.image.config import ImageConfig
    from containerd.pull.protocol import Archive


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
