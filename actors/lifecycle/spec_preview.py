"""Builds the OCI spec of a job without a start, for the `spec` command."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from actors.blocking import file_servers
from actors.images.messages import ImageReady
from actors.lifecycle import mount_targets, plan, preparation
from actors.model import identifiers
from containerd.documents import Document
from containerd.image import platforms
from containerd.image.config import ImageConfig
from containerd.image.oci_image import LoadedImage, load_image
from containerd.spec.build import build_spec
from containerd.spec.users import Accounts, ResolvedUser, lookup, resolve
from proto.errors import Code, DriverError
from proto.values import dataclass

if TYPE_CHECKING:
    from actors.lifecycle.plan import Plan, Preparation
    from actors.model.node import Node
    from actors.model.nomad import TaskConfig
    from actors.model.settings import TaskOptions
    from containerd.api.records import ImageRecord, Mount

_LEASE_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A spec, and notes on facts that only a start would know."""

    document: Document
    notes: tuple[str, ...]


async def preview(node: Node, task: TaskConfig, options: TaskOptions) -> Preview:
    """Builds the spec of a task by the steps of a start. Pulls nothing and leaves no object.

    Args:
        node: the driver's settings and the machine, with a connection to containerd.
        task: a description of the task, as Nomad would send.
        options: the job's options.

    Raises:
        DriverError: the failure that a start would have, or containerd is away. Code PRECONDITION;
            the spec depends on an image that is not on this machine.
    """
    prepared = await preparation.prepare(node, task, options)
    prepared.shared.close()
    image, notes = await _image(node, prepared.plan)
    try:
        user, placed = await _user_and_targets(prepared, image)
        return Preview(
            document=build_spec(plan.spec_inputs(placed, image, user)),
            notes=(*prepared.plan.warnings, *notes, *plan.notes_on_user(options, user)),
        )
    except DriverError as error:
        if image.digest:
            raise
        # The failure is about an image whose files and config nothing has read.
        written = prepared.plan.image
        raise DriverError(
            f"the spec depends on the image {written.written}, which is not on this machine",
            details=error.brief,
            resolution="write command, user and other missing options into the job"
            if written.archive
            else "run the job once, or pull the image, and repeat the command",
            code=Code.PRECONDITION,
        ) from error


async def _image(node: Node, planned: Plan) -> tuple[ImageReady, tuple[str, ...]]:
    """Returns the image without a pull, and notes; an image without config where none is here."""
    wanted = planned.image
    archived = wanted.archive is not None
    # Another image on this machine can have the name of an archive's image.
    record = None if archived else await node.containerd.images.get(wanted.name)
    loaded = await _loaded(node, record, wanted.platform) if record is not None else None
    if record is not None and loaded is not None:
        ready = ImageReady(
            name=record.name, digest=record.digest, chain_id=loaded.chain_id, config=loaded.config
        )
        mismatch = not wanted.platform and platforms.machine().mismatch(loaded.config.platform)
        return ready, (mismatch,) if mismatch else ()
    unknown = ImageReady(name=wanted.name, digest="", chain_id="", config=ImageConfig())
    where = "comes with the job's archive" if archived else "is not on this machine"
    note = (
        f"the image {wanted.written} {where}: the image's command, environment, user and working"
        " directory are missing here"
    )
    return unknown, (note,)


async def _loaded(node: Node, record: ImageRecord, platform: str) -> LoadedImage | None:
    """Returns containerd's copy of the image; None where blobs or the platform are missing."""
    try:
        return await load_image(node.containerd.content, record, platform)
    except DriverError as error:
        missing = {Code.NOT_FOUND, Code.UNSUPPORTED} if platform else {Code.NOT_FOUND}
        if error.code not in missing:
            raise
        return None


async def _user_and_targets(
    prepared: Preparation, image: ImageReady
) -> tuple[ResolvedUser, Preparation]:
    """Resolves the user and the mount targets; with the image's files where they are unpacked."""
    node, snapshotter = prepared.node, prepared.plan.image.snapshotter
    wanted, groups = prepared.task.user or image.config.user, prepared.options.group_add
    if not image.chain_id or not await node.containerd.snapshots.exists(
        snapshotter, image.chain_id
    ):
        user = lookup(wanted, Accounts("", ""), groups)
        return user, mount_targets.add_drivers_own(prepared)
    async with _files_of(node, snapshotter, image.chain_id) as mounts:
        user = await resolve(wanted, mounts, cache_key=image.chain_id, more_groups=groups)
        placed = await file_servers.run_probed(
            lambda: mount_targets.place(prepared, mounts, image.chain_id)
        )
        return user, placed


@contextlib.asynccontextmanager
async def _files_of(
    node: Node, snapshotter: str, chain_id: str
) -> AsyncGenerator[tuple[Mount, ...], None]:
    """Prepares a snapshot of the image for the block.

    A lease guards the snapshot: containerd removes both when this process is killed inside.
    """
    key = f"{identifiers.PREFIX}-spec-{secrets.token_hex(8)}"
    containerd = node.containerd
    try:
        # Inside the try: containerd may finish a call that Ctrl-C cut short.
        await containerd.leases.create(key, expire_s=_LEASE_S, labels={})
        yield await containerd.snapshots.prepare(snapshotter, key, chain_id, {}, key)
    finally:
        with contextlib.suppress(DriverError):
            await containerd.snapshots.remove(snapshotter, key)
        with contextlib.suppress(DriverError):
            await containerd.leases.delete(key)
