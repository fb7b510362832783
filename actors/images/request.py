"""Conversion of a job's options into an image request. No I/O; invalid options fail here."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING

from actors.images.messages import ImageRequest, PullPolicy
from containerd import reference
from containerd.image import platforms
from containerd.pull.protocol import Archive
from proto.errors import Code, DriverError, start_refused

if TYPE_CHECKING:
    from actors.model.node import Node
    from actors.model.nomad import TaskConfig
    from actors.model.settings import TaskOptions


def request(node: Node, task: TaskConfig, options: TaskOptions) -> ImageRequest:
    """Builds the request to the ImageActor.

    Raises:
        DriverError: code INVALID; the name, the policy or the archive's path is invalid.
    """
    name = reference.parse(options.image)
    return ImageRequest(
        written=options.image,
        name=str(name),
        snapshotter=options.snapshotter
        or node.settings.snapshotter
        or node.containerd.default_snapshotter,
        timeout_s=options.image_pull_timeout_s or node.settings.image_pull_timeout_s,
        auth=options.auth,
        policy=policy(options, name),
        auth_soft_fail=options.auth_soft_fail,
        archive=_archive(task, options.load) if options.load else None,
        platform=platform(options),
    )


def platform(options: TaskOptions) -> str:
    """Returns the job's platform, normalised; empty for the platform of the machine.

    Raises:
        DriverError: code INVALID; Docker's and Podman's options contradict each other, or the
            system is not Linux.
    """
    parts = tuple(options.platform.split("/")) if options.platform else ()
    if len(parts) == 1:
        parts = ("linux", *parts)
    own = (options.os, options.arch, options.variant)
    if parts and any(own):
        raise start_refused("platform stands beside os, arch or variant: write one of both forms")
    if not parts and not any(own):
        return ""
    system, arch, variant = (*parts, "", "")[:3] if parts else own
    wanted = platforms.normalised(
        system or "linux", arch or platforms.machine().runs[0].architecture, variant
    )
    if wanted.os != "linux":
        raise start_refused(
            f"platform: images for {wanted.os[:64]!r} do not run here, only images for linux"
        )
    # A variant that normalisation drops, such as v8 of arm64, is the job's wish all the same.
    return f"{wanted.os}/{wanted.architecture}" + (f"/{variant}" if variant else "")


def policy(options: TaskOptions, name: reference.Reference) -> PullPolicy:
    """Returns the job's policy. The tag `latest` may change, so the default policy asks each time.

    Raises:
        DriverError: code INVALID; force_pull contradicts image_pull_policy.
    """
    written = options.image_pull_policy
    if options.force_pull and written not in {"", PullPolicy.ALWAYS}:
        raise DriverError(
            f'force_pull = true and image_pull_policy = "{written}" exclude each other',
            resolution="remove one of the two options",
            code=Code.INVALID,
        )
    if options.force_pull:
        return PullPolicy.ALWAYS
    if written:
        return PullPolicy(written)
    return PullPolicy.FRESH if name.tag == "latest" and not name.digest else PullPolicy.MISSING


def _archive(task: TaskConfig, load: str) -> Archive:
    clean = posixpath.normpath(load)
    no_directory = not task.alloc_dir or task.name in {"", ".", ".."} or "/" in task.name
    if load.startswith("/") or ".." in load.split("/") or clean == "." or no_directory:
        raise DriverError(
            f"load: {load[:200]!r} is not a path beneath the task's directory",
            resolution='write a path such as "local/image.tar", without ..',
            code=Code.INVALID,
        )
    return Archive(root=str(Path(task.alloc_dir) / task.name), path=clean)
