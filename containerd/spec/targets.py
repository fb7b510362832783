"""Where the targets of mounts really are in a container, worked out before a runtime follows links.

An image chooses its links, and so does each task that writes to a directory which is mounted. A
target is therefore resolved here, name by name, in the container as it will be: the image's root
with the mounts over it. The runtime is given the place at the end, on which no link lies, and the
place is judged like a target that the job has written.
"""

from __future__ import annotations

import dataclasses
import enum
import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from containerd.spec.mounts import MountPoint, by_depth, copies_up, covers, invalid, is_reserved

# As many as the kernel follows, and more rounds than mounts depend on each other in any job.
_MAX_LINKS = 40
_ROUNDS = 8
# Each name is looked up, and its whole path with it: job and image choose how many there are.
_MAX_NAMES = 128
_KERNEL_PLACES = ("/dev", "/proc", "/sys")


class Kind(enum.Enum):
    """What a name of a root directory is, no link followed."""

    ABSENT = "is not there"
    DIRECTORY = "is a directory"
    LINK = "is a link"
    OTHER = "is a file"


@dataclass(frozen=True, slots=True)
class Entry:
    """A name: its kind, and for a link the text."""

    kind: Kind
    text: str = ""


ABSENT = Entry(Kind.ABSENT)
DIRECTORY = Entry(Kind.DIRECTORY)
Look = Callable[[str], Entry]
LookBelow = Callable[[MountPoint, str], Entry]


def place(
    points: Sequence[MountPoint], look: Look, look_below: LookBelow, *, plain: Sequence[str] = ()
) -> list[MountPoint]:
    """The mounts at the places that their targets lead to, in the order given.

    Args:
        points: with targets as written.
        look: an absolute path of the image, all before the last name being no links.
        look_below: the same for a path in what a bind shows, relative to it.
        plain: targets that no link may lead to, beside /dev, /proc and /sys: the driver's own.

    Raises:
        DriverError: code INVALID; a link leads a mount to what the container is made of.
    """
    for path in (*_KERNEL_PLACES, *plain):
        _check_plain(path, look)
    targets = [point.target for point in points]
    for _ in range(_ROUNDS):
        found = _round(points, targets, look, look_below)
        if found == targets:
            return [
                dataclasses.replace(point, target=target)
                for point, target in zip(points, targets, strict=True)
            ]
        targets = found
    raise invalid(
        "mounts: their targets lead through each other by links, without end",
        "name the real paths of the container",
    )


def _check_plain(path: str, look: Look) -> None:
    for above in (*reversed(list(_above(path))), path):
        entry = look(above)
        if entry.kind in {Kind.ABSENT, Kind.DIRECTORY}:
            continue
        link = f" to {entry.text[:128]!r}" if entry.kind is Kind.LINK else ""
        raise invalid(
            f"the image's {above[:128]!r} {entry.kind.value}{link}, and {path} of a container is"
            " mounted by the driver",
            "use an image with a directory there, or with nothing",
        )


def _round(
    points: Sequence[MountPoint], targets: list[str], look: Look, look_below: LookBelow
) -> list[str]:
    """The places, with those of the last round for what is mounted before each."""
    placed: dict[str, MountPoint] = {}

    def entry(path: str) -> Entry:
        if path in placed or path in _KERNEL_PLACES:
            return DIRECTORY
        for above in _above(path):
            if above in placed:
                point = placed[above]
                if copies_up(point):
                    continue  # the links of what lies under it are in it, too
                if point.type != "bind":
                    return ABSENT
                return look_below(point, path[len(above) + 1 :])
            if above in _KERNEL_PLACES:
                return ABSENT
        return look(path)

    found = list(targets)
    for number in sorted(range(len(points)), key=lambda index: targets[index].count("/")):
        found[number] = _walk(points[number], entry)
        placed[found[number]] = points[number]
    return found


def _walk(point: MountPoint, entry: Look) -> str:
    """The place of a mount: its target with all links followed, as the kernel does in a root."""
    names, here, links = _names(point.target), "", list[str]()
    steps = 0
    while names:
        steps += 1
        if steps > _MAX_NAMES:
            raise invalid(
                f"mounts: target {point.target[:128]!r} has more than {_MAX_NAMES} names, with"
                " those of the links on the way"
            )
        name = names.pop(0)
        if name == "..":
            here = posixpath.dirname(here).rstrip("/")
            continue
        found = entry(f"{here}/{name}")
        if found.kind is not Kind.LINK:
            here = f"{here}/{name}"
            continue
        links.append(f"{here}/{name} -> {found.text}")
        if len(links) > _MAX_LINKS:
            raise invalid(f"mounts: target {point.target[:128]!r} leads through too many links")
        names = _names(found.text) + names
        if found.text.startswith("/"):
            here = ""
    if links and is_reserved(here or "/", point.reach):
        raise invalid(
            f"mounts: target {point.target[:128]!r} leads to {(here or '/')[:128]!r} by the link"
            f" {links[0][:256]!r}, and that is the container's own",
            "name the real path as the target, or use an image without the link",
        )
    return here


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in {"", "."}]


def _above(path: str) -> Iterator[str]:
    """The directories above a path, the nearest first, without the root."""
    while (path := posixpath.dirname(path)) not in {"/", ""}:
        yield path


def check_copies(points: Sequence[MountPoint]) -> None:
    """Refuses a tmpfs that is filled with a copy of what a bind shows.

    The runtime copies by paths of the host, before it has changed its root. A task that shares the
    directory may put a link in the place of a file meanwhile: the copy would be of a host's file.

    Raises:
        DriverError: code INVALID; it names the target.
    """
    binds = [point for point in points if point.type == "bind"]
    for point in points:
        if copies_up(point) and covers(binds, point.target):
            raise invalid(
                f"mounts: tmpcopyup of {point.target[:128]!r} would copy a directory that tasks and"
                " the host can change meanwhile",
                "leave tmpcopyup out, or use it for a directory of the image alone",
            )


def nested(points: Sequence[MountPoint]) -> Iterator[tuple[MountPoint, MountPoint, str]]:
    """Each mount whose place lies in a bind: the bind, the mount, and the path in the bind."""
    at = {point.target: point for point in by_depth(points)}
    for point in by_depth(points):
        above = next((path for path in _above(point.target) if path in at), "")
        if above and at[above].type == "bind":
            yield at[above], point, point.target[len(above) + 1 :]
