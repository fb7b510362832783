"""Resolves mounts of a snapshot that refer to each other, as containerd's mount manager (2.2) does.

A type such as `format/mkdir/overlay` names steps before the mount of its last part, `overlay`. In
an option, `{{ mount 0 }}` stands for the mount point of the list's first mount. A reader needs the
references only: the steps create directories and file systems for writers, so the steps are
skipped.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from containerd.api.records import Mount

_REFERENCE = re.compile(r"\{\{ *(mount|source|overlay) +([0-9]{1,4})(?: +([0-9]{1,4}))? *\}\}")
_OF_WRITERS = ("upperdir=", "workdir=", "X-containerd.")


def resolve(mounts: tuple[Mount, ...], path_of: Callable[[int], str]) -> list[tuple[Mount, str]]:
    """Returns the mounts to make, in order, each with a mount point; "" means the root.

    Args:
        mounts: the snapshotter's list.
        path_of: returns the mount point for the index of a mount in the list.

    Raises:
        OSError: a mount refers to itself or to a later mount.
    """
    if not any("/" in mount.type or _texts_refer(mount) for mount in mounts):
        return [(mount, "") for mount in mounts]
    last = len(mounts) - 1
    resolved: list[tuple[Mount, str]] = []
    needed = {last}
    for number in range(last, -1, -1):
        if number in needed:
            reader = _for_a_reader(mounts[number])
            needed |= _referred(reader, number)
            path = "" if number == last else path_of(number)
            resolved.append((_filled(reader, mounts, path_of), path))
    return resolved[::-1]


def _texts(mount: Mount) -> tuple[str, ...]:
    return (mount.source, *mount.options)


def _texts_refer(mount: Mount) -> bool:
    return any(_REFERENCE.search(text) for text in _texts(mount))


def _for_a_reader(mount: Mount) -> Mount:
    options = tuple(option for option in mount.options if not option.startswith(_OF_WRITERS))
    return dataclasses.replace(mount, type=mount.type.rpartition("/")[2], options=options)


def _numbers(match: re.Match[str]) -> list[int]:
    first, last = int(match[2]), int(match[3] or match[2])
    return [*range(first, last + 1)] if first <= last else [*range(first, last - 1, -1)]


def _referred(mount: Mount, number: int) -> set[int]:
    matches = [match for text in _texts(mount) for match in _REFERENCE.finditer(text)]
    needed = {index for match in matches if match[1] != "source" for index in _numbers(match)}
    every = {index for match in matches for index in _numbers(match)}
    if any(index >= number for index in every):
        raise OSError(f"mount {number} does not refer to an earlier mount")
    return needed


def _filled(mount: Mount, mounts: tuple[Mount, ...], path_of: Callable[[int], str]) -> Mount:
    def text_of(match: re.Match[str]) -> str:
        if match[1] == "source":
            return mounts[int(match[2])].source
        return ":".join(path_of(number) for number in _numbers(match))

    source, *options = (_REFERENCE.sub(text_of, text) for text in _texts(mount))
    return dataclasses.replace(mount, source=source, options=tuple(options))
