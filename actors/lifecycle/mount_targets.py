"""Targets of a task's mounts, brought to the places where they really are, before the runtime acts.

`place` looks at the image and at what the mounts show. `make` makes the targets that lie in a bind,
so that the runtime has nothing to make there: a task that shares the directory may exchange it for
a link at any moment, and the runtime would follow.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from actors.provision import mount_sources
from actors.provision.host_resources import HostParts
from containerd.spec import root_links, targets
from containerd.spec.build import INIT_PATH
from containerd.spec.mounts import (
    MountPoint,
    Reach,
    invalid,
    is_readonly_tree,
    program,
    run_directory,
    wholly_readonly,
)
from containerd.spec.targets import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.lifecycle.plan import Plan
    from actors.model.settings import TaskOptions
    from containerd.api.records import Mount
    from containerd.spec.devices import DeviceNode

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the container's


def place(
    made: Plan,
    options: TaskOptions,
    parts: HostParts,
    image: tuple[Mount, ...] | None,
    chain_id: str,
) -> HostParts:
    """The parts with all mounts and devices at their real places, no link on the way. Blocks.

    Args:
        made: names the init program.
        options: of the task.
        parts: with targets as Nomad and the job name them.
        image: mounts of a snapshot with the image's files; None where there is none yet.
        chain_id: of the image.

    Raises:
        rootfs_links.NotRemembered: the image has to be looked at, and there is no snapshot.
        DriverError: code INVALID; a link of the image, or of a directory that a task writes, leads
            a mount to what the container itself is made of.
    """
    points = with_drivers(made, options, parts).mounts
    # No link lies in the runtime's /dev; elsewhere, a device follows links as a mount does.
    reach = Reach.ALL if options.privileged else Reach.JOB
    nodes = {
        node.path: MountPoint(target=node.path, type="device", reach=reach)
        for node in parts.devices
        if not node.path.startswith("/dev/")
    }

    def look_below(point: MountPoint, path: str) -> Entry:
        return mount_sources.entry(parts.sources[point.source], path)

    placed = root_links.with_links(
        image,
        chain_id,
        lambda look: targets.place(
            (*points, *nodes.values()), look, look_below, plain=_tops(parts.own)
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
    if made.recursive_readonly:
        placed = [_wholly_readonly(point, parts) for point in placed]
    return dataclasses.replace(parts, mounts=tuple(placed), devices=devices)


def _keep_out_of_host_memory(placed: Sequence[MountPoint], nodes: Sequence[DeviceNode]) -> None:
    """Refuses targets below the host's /dev/shm, which any user and task writes to.

    The runtime would make them there, on the host, and follow what links it finds.
    """
    if any(point.target == _SHARED_MEMORY for point in placed):
        return
    for target in (*(point.target for point in placed), *(node.path for node in nodes)):
        if target.startswith(f"{_SHARED_MEMORY}/"):
            raise invalid(
                f"mounts: target {target[:128]!r} lies in the host's {_SHARED_MEMORY}, which"
                ' ipc_mode = "host" shows',
                f"mount it elsewhere, or mount a directory at {_SHARED_MEMORY} itself",
            )


def _wholly_readonly(point: MountPoint, parts: HostParts) -> MountPoint:
    """A read-only mount of a host's directory; what is held shows no other file systems."""
    source = parts.sources.get(point.source)
    if source is None or source.root or not is_readonly_tree(point):
        return point
    return wholly_readonly(point) if mount_sources.is_directory(source) else point


def with_drivers(made: Plan, options: TaskOptions, parts: HostParts) -> HostParts:
    """The parts with the mounts that the driver adds by the task's options.

    A read-only root gets a tmpfs on /run; other images keep what they put there.
    """
    own: list[MountPoint] = []
    if options.readonly_rootfs:
        own.append(run_directory())
    if made.init:
        own.append(program(made.init, INIT_PATH))
    return dataclasses.replace(parts, mounts=(*own, *parts.mounts))


def _tops(own: tuple[str, ...]) -> list[str]:
    return [path for path in own if not path.startswith(tuple(f"{above}/" for above in own))]


def make(made: Plan, parts: HostParts) -> None:
    """Makes the targets that lie in a bind and are not there. Blocks.

    Raises:
        DriverError: code INVALID; a link came into the way, or the kernel refuses, or the bind is
            read-only.
    """
    for above, point, path in targets.nested(parts.mounts):
        if above.source not in parts.sources:
            continue
        if above.readonly:
            if made.runtime.shows_mounts:
                _check_there(above, point, mount_sources.entry(parts.sources[above.source], path))
        else:
            shown = parts.sources.get(point.source) if point.type == "bind" else None
            mount_sources.make_target(parts.sources[above.source], path, shown)


def _check_there(above: MountPoint, point: MountPoint, found: Entry) -> None:
    """Refuses what runc cannot make, and what crun makes before the bind becomes read-only."""
    if found.kind is Kind.ABSENT:
        raise invalid(
            f"mounts: target {point.target[:128]!r} is not there in what is mounted read-only at"
            f" {above.target[:128]!r}",
            "make it in the source of that mount before the task starts, or mount that writable",
        )
