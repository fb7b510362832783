"""Targets of a task's mounts, brought to the places where they really are, before the runtime acts.

`place` looks at the image and at what the mounts show. `make` makes the targets that lie in a bind,
so that the runtime has nothing to make there: a task that shares the directory may exchange it for
a link at any moment, and the runtime would follow.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from actors import host_paths
from actors.host_parts import HostParts
from containerd import mounts, rootfs_links, spec, targets
from containerd.mounts import MountPoint
from containerd.targets import Entry

if TYPE_CHECKING:
    from actors.plan import Plan
    from actors.settings import TaskOptions
    from containerd.records import Mount


def place(
    made: Plan, options: TaskOptions, parts: HostParts, image: tuple[Mount, ...], chain_id: str
) -> HostParts:
    """The parts with every mount of the task at its real place, no link on the way. Blocks.

    Args:
        made: names the init program.
        options: of the task.
        parts: with targets as Nomad and the job name them.
        image: mounts of a snapshot with the image's files.
        chain_id: of the image.

    Raises:
        DriverError: code INVALID; a link of the image, or of a directory that a task writes, leads
            a mount to what the container itself is made of.
    """
    points = with_drivers(made, options, parts).mounts

    def look_below(point: MountPoint, path: str) -> Entry:
        return host_paths.entry(parts.sources[point.source], path)

    placed = rootfs_links.with_links(
        image,
        chain_id,
        lambda look: targets.place(points, look, look_below, plain=_tops(parts.own)),
    )
    if made.recursive_readonly:
        placed = [_wholly_readonly(point, parts) for point in placed]
    return dataclasses.replace(parts, mounts=tuple(placed))


def _wholly_readonly(point: MountPoint, parts: HostParts) -> MountPoint:
    """A read-only mount of a host's directory; what is held shows no other file systems."""
    source = parts.sources.get(point.source)
    if source is None or source.root or not mounts.is_readonly_tree(point):
        return point
    return mounts.wholly_readonly(point) if host_paths.is_directory(source) else point


def with_drivers(made: Plan, options: TaskOptions, parts: HostParts) -> HostParts:
    """The parts with the mounts that the driver adds by the task's options.

    A read-only root gets a tmpfs on /run; other images keep what they put there.
    """
    own: list[MountPoint] = []
    if options.readonly_rootfs:
        own.append(mounts.run_directory())
    if made.init:
        own.append(mounts.program(made.init, spec.INIT_PATH))
    return dataclasses.replace(parts, mounts=(*own, *parts.mounts))


def _tops(own: tuple[str, ...]) -> list[str]:
    return [path for path in own if not path.startswith(tuple(f"{above}/" for above in own))]


def make(parts: HostParts) -> None:
    """Makes the targets that lie in a bind and are not there. Blocks.

    Raises:
        DriverError: code INVALID; a link came into the way, or the kernel refuses.
    """
    for above, point, path in targets.nested(parts.mounts):
        if above.source in parts.sources and not above.readonly:
            shown = parts.sources.get(point.source) if point.type == "bind" else None
            host_paths.make_target(parts.sources[above.source], path, shown)
