"""Resolves the targets of mounts before a runtime follows links. Pure functions.

An image contains links, and a task can create links in a mounted directory. So the driver resolves
each target name by name, in the future container: the image's root with the mounts over the root.
The runtime gets the resolved path, with no link on the way. The driver checks the resolved path
like a target in the job's config.
"""

from __future__ import annotations

import dataclasses
import enum
import posixpath
from collections.abc import Callable, Iterator, Sequence

from containerd.spec.mounts import MountPoint, by_depth, copies_up, covers, is_reserved
from proto.errors import start_refused
from proto.values import dataclass

# The kernel's own limit of links in a path.
_MAX_LINKS = 40
# More rounds than mounts of a real job depend on each other.
_ROUNDS = 8
# The job and the image decide the number of names in a path, and each name costs a lookup of the
# path up to the name.
_MAX_NAMES = 128
_KERNEL_PATHS = ("/dev", "/proc", "/sys")


class Kind(enum.Enum):
    """Type of a file, links not followed. Values continue "the image's '/x' …"."""

    ABSENT = "does not exist"
    DIRECTORY = "is a directory"
    LINK = "is a link"
    OTHER = "is a file"


@dataclass(frozen=True, slots=True)
class Entry:
    """Type of a file, and a link's text."""

    kind: Kind
    text: str = ""


ABSENT = Entry(Kind.ABSENT)
DIRECTORY = Entry(Kind.DIRECTORY)
Inspect = Callable[[str], Entry]
InspectBelow = Callable[[MountPoint, str], Entry]


def resolve(
    points: Sequence[MountPoint],
    inspect: Inspect,
    inspect_below: InspectBelow,
    *,
    plain: Sequence[str] = (),
) -> list[MountPoint]:
    """Returns the mounts with resolved targets, in the same order.

    Args:
        points: mounts with targets as Nomad and the job name them.
        inspect: returns the entry at an absolute path of the image; only the last name may be a
            link.
        inspect_below: returns the entry at a path relative to a bind's source.
        plain: more targets on the way to which no link may lie, beside /dev, /proc and /sys: the
            driver's own.

    Raises:
        DriverError: code INVALID; a link leads a mount to a path that the container itself needs.
    """
    for path in (*_KERNEL_PATHS, *plain):
        _check_plain(path, inspect)
    targets = [point.target for point in points]
    for _ in range(_ROUNDS):
        resolved = _round(points, targets, inspect, inspect_below)
        if resolved == targets:
            return [
                dataclasses.replace(point, target=target)
                for point, target in zip(points, targets, strict=True)
            ]
        targets = resolved
    raise start_refused(
        "mounts: the targets lead through each other by links, without end",
        "name the real paths of the container",
    )


def _check_plain(path: str, inspect: Inspect) -> None:
    for above in (*reversed(list(_above(path))), path):
        entry = inspect(above)
        if entry.kind in {Kind.ABSENT, Kind.DIRECTORY}:
            continue
        link = f" to {entry.text[:128]!r}" if entry.kind is Kind.LINK else ""
        raise start_refused(
            f"the image's {above[:128]!r} {entry.kind.value}{link}, and the driver mounts {path}"
            " in every container",
            f"use an image in which {above[:128]!r} is a directory or absent",
        )


def _round(
    points: Sequence[MountPoint], targets: list[str], inspect: Inspect, inspect_below: InspectBelow
) -> list[str]:
    """Resolves each target once, over the mounts before the target.

    The targets of the last round decide the order of the mounts.
    """
    mounted: dict[str, MountPoint] = {}

    def entry(path: str) -> Entry:
        if path in mounted or path in _KERNEL_PATHS:
            return DIRECTORY
        for above in _above(path):
            if above in mounted:
                point = mounted[above]
                if copies_up(point):
                    continue  # the copy has the links of the copied directory
                if point.type != "bind":
                    return ABSENT
                return inspect_below(point, path[len(above) + 1 :])
            if above in _KERNEL_PATHS:
                return ABSENT
        return inspect(path)

    resolved = list(targets)
    for number in sorted(range(len(points)), key=lambda index: targets[index].count("/")):
        resolved[number] = _walk(points[number], entry)
        mounted[resolved[number]] = points[number]
    return resolved


def _walk(point: MountPoint, inspect: Inspect) -> str:
    """Follows all links of a target as the kernel does in a root. Returns the resolved path."""
    names, here, links = _names(point.target), "", list[str]()
    steps = 0
    while names:
        steps += 1
        if steps > _MAX_NAMES:
            raise start_refused(
                f"mounts: target {point.target[:128]!r} has more than {_MAX_NAMES} names, counting"
                " the names in links on the way"
            )
        name = names.pop(0)
        if name == "..":
            here = posixpath.dirname(here).rstrip("/")
            continue
        entry = inspect(f"{here}/{name}")
        if entry.kind is not Kind.LINK:
            here = f"{here}/{name}"
            continue
        links.append(f"{here}/{name} -> {entry.text}")
        if len(links) > _MAX_LINKS:
            raise start_refused(
                f"mounts: target {point.target[:128]!r} leads through too many links"
            )
        names = _names(entry.text) + names
        if entry.text.startswith("/"):
            here = ""
    if links and is_reserved(here or "/", point.reach):
        raise start_refused(
            f"mounts: target {point.target[:128]!r} leads to {(here or '/')[:128]!r} by the link"
            f" {links[0][:256]!r}, and this path is the container's own",
            "name the real path as the target, or use an image without the link",
        )
    return here


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in {"", "."}]


def _above(path: str) -> Iterator[str]:
    """Yields the directories above a path, the nearest first, without the root."""
    while (path := posixpath.dirname(path)) not in {"/", ""}:
        yield path


def check_copies(points: Sequence[MountPoint]) -> None:
    """Refuses a tmpfs with a copy of a bind's content.

    The runtime copies by paths of the host, before the runtime changes its root. A task that shares
    the directory could replace a file by a link during the copy, and the runtime would copy a file
    of the host.

    Raises:
        DriverError: code INVALID; the message names the target.
    """
    binds = [point for point in points if point.type == "bind"]
    for point in points:
        if copies_up(point) and covers(binds, point.target):
            raise start_refused(
                f"mounts: tmpcopyup of {point.target[:128]!r} would copy a directory that tasks and"
                " the host can change during the copy",
                "remove tmpcopyup, write notmpcopyup in tmpfs, or mount the tmpfs over a directory"
                " of the image",
            )


def nested(points: Sequence[MountPoint]) -> Iterator[tuple[MountPoint, MountPoint, str]]:
    """Yields each mount inside a bind: the bind, the mount, and the path relative to the bind."""
    at = {point.target: point for point in by_depth(points)}
    for point in by_depth(points):
        above = next((path for path in _above(point.target) if path in at), "")
        if above and at[above].type == "bind":
            yield at[above], point, point.target[len(above) + 1 :]
