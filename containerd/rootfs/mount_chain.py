"""Mounts of a snapshot that refer to each other, as containerd's mount manager (2.2) takes them.

A type such as `format/mkdir/overlay` says what is done before its last part is mounted, and
`{{ mount 0 }}` in an option is where the first mount of the list lies. Here is what a look
needs of that: no directory and no file system is made, for those are a writer's.
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


def resolve(mounts: tuple[Mount, ...], place: Callable[[int], str]) -> list[tuple[Mount, str]]:
    """Returns the mounts that are to be made, in their order, and where: "" is the root.

    Args:
        mounts: as the snapshotter gave them.
        place: names the mount point of the mount with a number in the list.

    Raises:
        OSError: a reference leads to no mount before it.
    """
    if not any("/" in mount.type or _texts_refer(mount) for mount in mounts):
        return [(mount, "") for mount in mounts]
    last = len(mounts) - 1
    found: list[tuple[Mount, str]] = []
    needed = {last}
    for number in range(last, -1, -1):
        if number in needed:
            reader = _for_a_reader(mounts[number])
            needed |= _referred(reader, number)
            found.append((_filled(reader, mounts, place), "" if number == last else place(number)))
    return found[::-1]


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
    found = {one for match in matches if match[1] != "source" for one in _numbers(match)}
    every = {one for match in matches for one in _numbers(match)}
    if any(one >= number for one in every):
        raise OSError(f"its mount {number} refers to one that is not before it")
    return found


def _filled(mount: Mount, mounts: tuple[Mount, ...], place: Callable[[int], str]) -> Mount:
    def text_of(match: re.Match[str]) -> str:
        if match[1] == "source":
            return mounts[int(match[2])].source
        return ":".join(place(number) for number in _numbers(match))

    source, *options = (_REFERENCE.sub(text_of, text) for text in _texts(mount))
    return dataclasses.replace(mount, source=source, options=tuple(options))
