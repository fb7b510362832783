"""Compares a created container's mounts with its spec. Pure functions.

The runtime follows links of the image, and links in directories that tasks can write. A link may
lead a mount to /dev, and the runtime opens and replaces files in /dev with root's rights on the
host. A created task has run no program of the image yet, so at that moment the driver compares the
kernel's list of mounts with the spec.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping

from containerd.documents import Document
from proto.values import dataclass

# Nodes that the runtime creates in /dev, by major and minor number. The OCI spec lists them.
NODES: Mapping[str, tuple[int, int]] = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
_KERNEL_PATHS = ("/dev", "/proc", "/sys")
# In a line of mountinfo the separator ends the optional fields; the file system's name follows.
_SEPARATOR = " - "


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """A mount in mountinfo; target counts from the process's root, kind is the file system."""

    target: str
    kind: str


def parse(text: str) -> list[Mounted]:
    """Parses a /proc/<pid>/mountinfo; keeps the kernel's order."""
    mounts: list[Mounted] = []
    # Only a line feed separates two mounts: a name may contain any other character.
    for line in text.split("\n"):
        if line:
            head, _, tail = line.partition(_SEPARATOR)
            target, kind = head.split(" ", 5)[4], tail.split(" ", 1)[0]
            mounts.append(Mounted(target=_unescape(target), kind=kind))
    return mounts


def _unescape(text: str) -> str:
    """Decodes the kernel's octal escapes for blanks, line ends and backslashes."""
    if "\\" not in text:
        return text
    first, *rest = text.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A difference between the spec and the mounts. target is the path of the wrong mount."""

    target: str
    reason: str


def first_difference(
    spec: Document,
    mounted: list[Mounted],
    node: Callable[[str], int | None],
    *,
    more: bool = False,
) -> Difference | None:
    """Returns the first difference between a spec and the created mounts; None without any.

    Args:
        spec: the runtime's OCI document; no link lies on the way to a target.
        mounted: the mounts of the created process.
        node: returns the number of a character device by its name in /dev; None for other files.
        more: True for a runtime that adds mounts of its own.
    """
    expected: dict[str, Document] = {point["destination"]: point for point in spec["mounts"]}
    counted = Counter(point.target for point in mounted)
    wanted = Counter(point["destination"] for point in spec["mounts"])
    for target in expected:
        if not counted[target]:
            return Difference(target=target, reason="the mount went to another path")
    # Hooks of the operator's CDI files may mount anything, too.
    unexplained = None
    if not more and not spec.get("hooks"):
        unexplained = _unexplained_mount(spec, expected, wanted, counted)
    return (
        _wrong_kernel_mount(expected, mounted) or unexplained or _wrong_node(spec, expected, node)
    )


def _wrong_kernel_mount(
    expected: Mapping[str, Document], mounted: list[Mounted]
) -> Difference | None:
    """Checks the mounts at /, /dev, /proc and /sys: a single mount each, of the spec's type."""
    for path in ("/", *_KERNEL_PATHS):
        kinds = [point.kind for point in mounted if point.target == path]
        if len(kinds) != 1:
            return Difference(target=path, reason=f"{len(kinds)} mounts instead of one")
        kind = expected[path]["type"] if path in expected else "bind"
        if kind not in {"bind", kinds[0]}:
            return Difference(
                target=path, reason=f"the file system is {kinds[0]} instead of {kind}"
            )
    return None


def _unexplained_mount(
    spec: Document, expected: Mapping[str, Document], wanted: Counter[str], counted: Counter[str]
) -> Difference | None:
    """Finds a mount below /dev, /proc or /sys that is not the spec's and not the runtime's."""
    linux = spec["linux"]
    of_runtime = {
        *linux.get("maskedPaths", ()),
        *linux.get("readonlyPaths", ()),
        # A runtime without the right to create nodes binds the host's.
        *(f"/dev/{name}" for name in NODES),
        *(node["path"] for node in linux.get("devices", ())),
        *(("/dev/console",) if spec.get("process", {}).get("terminal") else ()),
    }
    trees = (
        *(target for target, point in expected.items() if point["type"] in {"bind", "cgroup"}),
        *linux.get("readonlyPaths", ()),
    )
    below = tuple(f"{tree}/" for tree in trees)
    inside = tuple(f"{path}/" for path in _KERNEL_PATHS)
    for target, count in counted.items():
        if (
            target.startswith(inside)
            and count > wanted[target] + (target in of_runtime)
            and not target.startswith(below)
        ):
            return Difference(target=target, reason="the spec has no mount at this path")
    return None


def _wrong_node(
    spec: Document, expected: Mapping[str, Document], node: Callable[[str], int | None]
) -> Difference | None:
    """Checks the nodes in /dev, unless /dev is a bind of the host's: then the runtime makes none.

    A privileged task has the host's devices, and a device of the host may have another number.
    """
    if expected["/dev"]["type"] == "bind":
        return None
    numbers = {
        entry["path"]: (entry["major"], entry["minor"])
        for entry in spec["linux"].get("devices", ())
    }
    for name, number in NODES.items():
        path = f"/dev/{name}"
        if node(name) != os.makedev(*numbers.get(path, number)) and path not in expected:
            return Difference(target=path, reason="the file is not the device of that name")
    return None
