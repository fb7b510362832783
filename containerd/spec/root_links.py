"""The names of an image's root directory that targets of mounts lead through.

They never change for one image, so they are remembered: the root is mounted for a look once.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from containerd import syscalls
from containerd.rootfs import view as rootfs_view
from containerd.spec.mounts import invalid
from containerd.spec.targets import ABSENT, DIRECTORY, Entry, Kind, Look

if TYPE_CHECKING:
    from containerd.api.records import Mount

T = TypeVar("T")
_REMEMBERED = 64
_REMEMBERED_CHARACTERS = 16 * 1024
_known: OrderedDict[str, dict[str, Entry]] = OrderedDict()


class NotRemembered(Exception):  # noqa: N818 - it asks for a snapshot and is no error
    """A path of the image was not looked at yet, or is not remembered."""


def with_links(mounts: tuple[Mount, ...] | None, cache_key: str, work: Callable[[Look], T]) -> T:
    """Runs `work`, perhaps twice, with a look at paths of the image. Blocks.

    Args:
        mounts: of a snapshot that has the image's files; None where there is none yet.
        cache_key: the image's chain id.
        work: asks for each path after those above it, and follows links itself.

    Raises:
        NotRemembered: there is no snapshot, and memory does not suffice.
        DriverError: the snapshot cannot be mounted, or a path of it cannot be.
        BaseException: what `work` raised.
    """
    known = _known.setdefault(cache_key, {})

    def remembered(path: str) -> Entry:
        if path not in known:
            raise NotRemembered
        return known[path]

    try:
        return work(remembered)
    except NotRemembered:
        if mounts is None:
            raise

    def read(root: int) -> T:
        size = _size(known)

        def look(path: str) -> Entry:
            nonlocal size
            if path in known:
                return known[path]
            found = _entry(root, path)
            if size <= _REMEMBERED_CHARACTERS:
                known[path] = found
                size += len(path) + len(found.text)
            return found

        return work(look)

    try:
        return rootfs_view.look(mounts, read)
    finally:
        _forget(cache_key, known)


def _forget(cache_key: str, known: dict[str, Entry]) -> None:
    """Keeps the memory small, whatever images and jobs name."""
    if _size(known) > _REMEMBERED_CHARACTERS:
        _known.pop(cache_key, None)
    while len(_known) > _REMEMBERED:
        _known.popitem(last=False)


def _size(known: dict[str, Entry]) -> int:
    return sum(len(path) + len(found.text) for path, found in known.items())


def _entry(root: int, path: str) -> Entry:
    try:
        return entry(root, path)
    except OSError as error:
        raise invalid(
            f"mounts: {path[:128]!r} of the image cannot be looked at: {error.strerror}",
            "mount at another path; a name has at most 255 bytes",
        ) from error


def entry(directory: int, path: str) -> Entry:
    """Returns what a path below an open directory is; its last name is not followed.

    Raises:
        OSError: a name before the last is a link, or the file system does not answer.
    """
    try:
        found = syscalls.openat2(
            directory, path.lstrip("/"), os.O_PATH | os.O_NOFOLLOW, syscalls.INSIDE
        )
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    try:
        mode = os.fstat(found).st_mode
        if stat.S_ISLNK(mode):
            return Entry(Kind.LINK, os.readlink("", dir_fd=found))
        return DIRECTORY if stat.S_ISDIR(mode) else Entry(Kind.OTHER)
    finally:
        os.close(found)
