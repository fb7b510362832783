"""Resolves the targets of a task's mounts before the runtime mounts anything.

`place` follows links in the image and in mounted directories. `make` creates the targets inside a
bind, so the runtime creates none: a task that shares the directory can replace a target by a link
at any moment, and the runtime would follow the link.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from actors.provision import mount_sources
from containerd.spec import root_links, targets
from containerd.spec.build import INIT_PATH
from containerd.spec.mounts import (
    MountPoint,
    Reach,
    is_readonly_tree,
    program,
    run_directory,
    wholly_readonly,
)
from containerd.spec.targets import Entry, Kind
from proto.errors import start_refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.lifecycle.plan import Preparation
    from actors.provision.host_resources import HostParts
    from containerd.api.records import Mount
    from containerd.spec.devices import DeviceNode

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the container's


def place(prepared: Preparation, image: tuple[Mount, ...] | None, chain_id: str) -> Preparation:
    """Moves the targets of all mounts and devices to the real paths behind links. Blocks.

    Args:
        prepared: the start, with targets as Nomad and the job name them.
        image: mounts of a snapshot with the image's files; None while no snapshot exists.
        chain_id: the image's files, by the name that containerd gives them.

    Returns:
        The start with the driver's own mounts added and no link on the way to any target.

    Raises:
        root_links.NotRemembered: the image must be read, and no snapshot exists.
        DriverError: code INVALID; a link of the image, or of a directory that a task can write,
            leads a mount to a path that the container itself needs.
    """
    options = prepared.options
    prepared = add_drivers_own(prepared)
    parts = prepared.parts
    points = parts.mounts
    # The runtime's /dev has no links. Elsewhere a device follows links as a mount does.
    reach = Reach.ALL if options.privileged else Reach.JOB
    nodes = {
        node.path: MountPoint(target=node.path, type="device", reach=reach)
        for node in parts.devices
        if not node.path.startswith("/dev/")
    }

    def entry_below(point: MountPoint, path: str) -> Entry:
        return mount_sources.entry(parts.sources[point.source], path)

    placed = root_links.with_links(
        image,
        chain_id,
        lambda entry: targets.resolve(
            (*points, *nodes.values()), entry, entry_below, plain=_tops(parts.own)
        ),
    )
    places = {path: point.target for path, point in zip(nodes, placed[len(points) :], strict=True)}
    devices = tuple(
        dataclasses.replace(node, path=places.get(node.path, node.path)) for node in parts.devices
    )
    placed = placed[: len(points)]
    targets.check_copies(placed)
    if options.ipc_mode and not options.privileged:
        _keep_out_of_host_memory(placed, devices)
    if prepared.plan.recursive_readonly:
        placed = [_wholly_readonly(point, parts) for point in placed]
    parts = dataclasses.replace(parts, mounts=tuple(placed), devices=devices)
    return dataclasses.replace(prepared, parts=parts)


def _keep_out_of_host_memory(placed: Sequence[MountPoint], nodes: Sequence[DeviceNode]) -> None:
    """Refuses targets below the host's /dev/shm, where any user and task can write.

    The runtime would create such targets on the host, and follow links on the way.
    """
    if any(point.target == _SHARED_MEMORY for point in placed):
        return
    for target in (*(point.target for point in placed), *(node.path for node in nodes)):
        if target.startswith(f"{_SHARED_MEMORY}/"):
            raise start_refused(
                f"mounts: target {target[:128]!r} lies in the host's {_SHARED_MEMORY}, which the"
                ' task sees with ipc_mode = "host"',
                f"choose another target, or mount a directory at {_SHARED_MEMORY} itself",
            )


def _wholly_readonly(point: MountPoint, parts: HostParts) -> MountPoint:
    """Makes file systems below a read-only mount read-only too.

    Only unpinned directories of the node need the option: a pin shows no other file systems.
    """
    source = parts.sources.get(point.source)
    if source is None or source.root or not is_readonly_tree(point):
        return point
    return wholly_readonly(point) if mount_sources.is_directory(source) else point


def add_drivers_own(prepared: Preparation) -> Preparation:
    """Adds the mounts that the driver makes for the task's options.

    A task with a read-only root gets a tmpfs on /run; otherwise the image's /run stays.
    """
    added: list[MountPoint] = []
    if prepared.options.readonly_rootfs:
        added.append(run_directory())
    if prepared.plan.init:
        added.append(program(prepared.plan.init, INIT_PATH))
    parts = dataclasses.replace(prepared.parts, mounts=(*added, *prepared.parts.mounts))
    return dataclasses.replace(prepared, parts=parts)


def _tops(own: tuple[str, ...]) -> list[str]:
    return [path for path in own if not path.startswith(tuple(f"{above}/" for above in own))]


def make(placed: Preparation) -> None:
    """Creates the missing targets inside binds. Blocks.

    Args:
        placed: the result of `place`.

    Raises:
        DriverError: code INVALID; a link appeared on the way, the kernel refuses, or the bind is
            read-only.
    """
    parts = placed.parts
    for above, point, path in targets.nested(parts.mounts):
        if above.source not in parts.sources:
            continue
        if above.readonly:
            if placed.plan.runtime.shares_kernel:
                _check_exists(above, point, mount_sources.entry(parts.sources[above.source], path))
        else:
            shown = parts.sources.get(point.source) if point.type == "bind" else None
            mount_sources.make_target(parts.sources[above.source], path, shown)


def _check_exists(above: MountPoint, point: MountPoint, existing: Entry) -> None:
    """Refuses a missing target in a read-only bind.

    runc cannot create such a target; crun creates the target before the bind becomes read-only.
    """
    if existing.kind is Kind.ABSENT:
        raise start_refused(
            f"mounts: target {point.target[:128]!r} does not exist in the read-only mount at"
            f" {above.target[:128]!r}",
            "create the target in the source of that mount before the task starts, or mount the"
            " source writable",
        )
