"""The OCI spec that a start would give its container, worked out without starting anything."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.blocking import file_servers
from actors.images.messages import ImageReady
from actors.lifecycle import mount_targets, plan, preparation
from actors.model import identifiers
from containerd.image import platforms
from containerd.image.config import ImageConfig
from containerd.image.oci_image import LoadedImage, load_image
from containerd.spec.build import Document, build_spec
from containerd.spec.users import Accounts, ResolvedUser, lookup, resolve
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from actors.lifecycle.plan import Plan
    from actors.model.node import Node
    from actors.model.nomad import TaskConfig
    from actors.model.settings import TaskOptions
    from actors.provision.host_resources import HostParts
    from containerd.api.records import ImageRecord, Mount

_LEASE_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The spec, and what it cannot know."""

    document: Document
    notes: tuple[str, ...]


async def preview(node: Node, task: TaskConfig, options: TaskOptions) -> Preview:
    """The spec of a task, by the same steps as its start. Nothing is pulled and nothing stays.

    Raises:
        DriverError: what the start would fail with, or containerd is away.
    """
    made, parts = await preparation.prepare(node, task, options)
    image, notes = await _image(node, made)
    try:
        user, parts = await _looked(node, task, options, made, image, parts)
        inputs = plan.spec_inputs(node, task, options, made, image, user, parts)
        return Preview(
            document=build_spec(inputs),
            notes=(*notes, *plan.notes_on_user(options, user)),
        )
    except DriverError as error:
        if image.digest:
            raise
        # It speaks of an image that nobody has looked into.
        raise DriverError(
            f"what it gets depends on its image {made.image.written}, which is not on this machine",
            details=error.brief,
            resolution="write command, user and what else is missing into the job"
            if made.image.archive
            else "run the job once, or pull the image, and ask again",
            code=Code.PRECONDITION,
        ) from error


async def _image(node: Node, made: Plan) -> tuple[ImageReady, tuple[str, ...]]:
    brought = made.image.archive is not None
    # By its name another image may be here, which the start would not take.
    record = None if brought else await node.containerd.images.get(made.image.name)
    found = await _loaded(node, record) if record is not None else None
    if record is not None and found is not None:
        ready = ImageReady(
            name=record.name, digest=record.digest, chain_id=found.chain_id, config=found.config
        )
        mismatch = platforms.machine().mismatch(found.config.platform)
        return ready, (mismatch,) if mismatch else ()
    nothing = ImageReady(name=made.image.name, digest="", chain_id="", config=ImageConfig())
    where = "comes with the job's archive" if brought else "is not on this machine"
    note = (
        f"the image {made.image.written} {where}: what it says of command, environment, user and"
        " working directory is missing here"
    )
    return nothing, (note,)


async def _loaded(node: Node, record: ImageRecord) -> LoadedImage | None:
    """Returns what containerd has of the image; None where blobs are missing."""
    try:
        return await load_image(node.containerd.content, record)
    except DriverError as error:
        if error.code is not Code.NOT_FOUND:
            raise
        return None


async def _looked(
    node: Node,
    task: TaskConfig,
    options: TaskOptions,
    made: Plan,
    image: ImageReady,
    parts: HostParts,
) -> tuple[ResolvedUser, HostParts]:
    """The user, and the mounts at their places, by a look into the image if it is there."""
    wanted, groups = task.user or image.config.user, options.group_add
    there = image.chain_id and await node.containerd.snapshots.exists(
        made.image.snapshotter, image.chain_id
    )
    if not there:
        user = lookup(wanted, Accounts("", ""), groups)
        return user, mount_targets.with_drivers(made, options, parts)
    async with _files_of(node, made.image.snapshotter, image.chain_id) as mounts:
        user = await resolve(wanted, mounts, cache_key=image.chain_id, more_groups=groups)
        placed = await file_servers.looked_at(
            lambda: mount_targets.place(made, options, parts, mounts, image.chain_id)
        )
        return user, placed


@contextlib.asynccontextmanager
async def _files_of(
    node: Node, snapshotter: str, chain_id: str
) -> AsyncGenerator[tuple[Mount, ...], None]:
    """A snapshot of the image for a look into it; containerd removes it if we are killed here."""
    key = f"{identifiers.PREFIX}-spec-{secrets.token_hex(8)}"
    containerd = node.containerd
    try:
        # In here, for a call that Ctrl-C cut short may have been done.
        await containerd.leases.create(key, expire_s=_LEASE_S, labels={})
        yield await containerd.snapshots.prepare(snapshotter, key, chain_id, {}, key)
    finally:
        with contextlib.suppress(DriverError):
            await containerd.snapshots.remove(snapshotter, key)
        with contextlib.suppress(DriverError):
            await containerd.leases.delete(key)
