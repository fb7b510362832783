"""What a container's mounts must look like before its program starts, as a pure judgement.

The runtime follows links of the image and of directories that tasks write, inside the container:
a mount may end up in the place of /dev, and what lies there is opened and replaced by the runtime
with the host's own power. Nothing of the image has run when a task is created and not started, so
the kernel's list of its mounts is compared with the spec then.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from containerd.documents import Document

# What the runtime makes in its /dev, by major and minor number. OCI lists them.
NODES: Mapping[str, tuple[int, int]] = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
_KERNEL_PLACES = ("/dev", "/proc", "/sys")
# Where the kernel's list begins to name the file system, after any number of optional fields.
_SEPARATOR = " - "


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """A mount of a process; target counts from the process's root."""

    target: str
    kind: str


def parse(text: str) -> list[Mounted]:
    """The mounts of a /proc/<pid>/mountinfo, in the kernel's order."""
    found: list[Mounted] = []
    # Only the end of a line parts two mounts: a name may have any other character in it.
    for line in text.split("\n"):
        if line:
            head, _, tail = line.partition(_SEPARATOR)
            target, kind = head.split(" ", 5)[4], tail.split(" ", 1)[0]
            found.append(Mounted(target=_unescape(target), kind=kind))
    return found


def _unescape(text: str) -> str:
    """Returns a name without the three octal digits for blanks, line ends and backslashes."""
    if "\\" not in text:
        return text
    first, *rest = text.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A difference. target is the mount of the spec that went wrong, or where a stray one is."""

    target: str
    why: str


def judge(
    spec: Document,
    mounted: list[Mounted],
    node: Callable[[str], int | None],
) -> Fault | None:
    """The first difference between a spec and what was mounted for it; None where all is right.

    Args:
        spec: the OCI document that the runtime was given, with targets that lead through no link.
        mounted: the mounts of the created process.
        node: the number of the character device of a name in /dev; None for anything else.
    """
    own: dict[str, Document] = {point["destination"]: point for point in spec["mounts"]}
    counted = Counter(point.target for point in mounted)
    wanted = Counter(point["destination"] for point in spec["mounts"])
    for target in own:
        if not counted[target]:
            return Fault(target=target, why="its mount went to another place")
    return (
        _of_kernel_places(own, mounted)
        or _stray(spec, own, wanted, counted)
        or _wrong_node(spec, own, node)
    )


def _of_kernel_places(own: Mapping[str, Document], mounted: list[Mounted]) -> Fault | None:
    """The root and the kernel's places have one mount each, of the spec's kind."""
    for place in ("/", *_KERNEL_PLACES):
        kinds = [point.kind for point in mounted if point.target == place]
        if len(kinds) != 1:
            return Fault(target=place, why=f"{len(kinds)} mounts are there instead of one")
        kind = own[place]["type"] if place in own else "bind"
        if kind not in {"bind", kinds[0]}:
            return Fault(target=place, why=f"its file system is {kinds[0]} instead of {kind}")
    return None


def _stray(
    spec: Document, own: Mapping[str, Document], wanted: Counter[str], counted: Counter[str]
) -> Fault | None:
    """A mount below the kernel's places that neither the spec nor the runtime itself explains."""
    if spec.get("hooks"):
        # Programs of CDI files, which the operator has put there, mount what they like.
        return None
    linux = spec["linux"]
    runtimes = {
        *linux.get("maskedPaths", ()),
        *linux.get("readonlyPaths", ()),
        # A runtime that cannot make nodes binds the host's.
        *(f"/dev/{name}" for name in NODES),
        *(node["path"] for node in linux.get("devices", ())),
    }
    trees = (
        *(target for target, point in own.items() if point["type"] in {"bind", "cgroup"}),
        *linux.get("readonlyPaths", ()),
    )
    below = tuple(f"{tree}/" for tree in trees)
    inside = tuple(f"{place}/" for place in _KERNEL_PLACES)
    for target, count in counted.items():
        if (
            target.startswith(inside)
            and count > wanted[target] + (target in runtimes)
            and not target.startswith(below)
        ):
            return Fault(target=target, why="a mount is there that nobody has asked for")
    return None


def _wrong_node(
    spec: Document, own: Mapping[str, Document], node: Callable[[str], int | None]
) -> Fault | None:
    """The runtime's own nodes, where it makes any: not below a bind of the host's /dev.

    A privileged task has those of its host, which may have other numbers there.
    """
    if own["/dev"]["type"] == "bind":
        return None
    given = {
        entry["path"]: (entry["major"], entry["minor"])
        for entry in spec["linux"].get("devices", ())
    }
    for name, number in NODES.items():
        path = f"/dev/{name}"
        if node(name) != os.makedev(*given.get(path, number)) and path not in own:
            return Fault(target=path, why="it is not the device of that name")
    return None
