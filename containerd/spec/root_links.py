"""Reads the links of an image on the way to the targets of mounts.

The files of a chain id never change, so entries are cached: only the first start with an image
mounts the image's root.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from containerd import syscalls
from containerd.rootfs.view import read_root
from containerd.spec.targets import ABSENT, DIRECTORY, Entry, Inspect, Kind
from proto.errors import start_refused

if TYPE_CHECKING:
    from containerd.api.records import Mount

T = TypeVar("T")
_MAX_IMAGES = 64
_MAX_CHARACTERS = 16 * 1024
# Entries by chain id and path. The cache belongs to the process: entries are facts about files that
# never change, so entries hold for every caller and need no invalidation.
_cache: OrderedDict[str, dict[str, Entry]] = OrderedDict()


class NotRemembered(Exception):  # noqa: N818 - asks the caller for a snapshot; not an error
    """The cache has no entry for a path of the image."""


def with_links(mounts: tuple[Mount, ...] | None, cache_key: str, work: Callable[[Inspect], T]) -> T:
    """Runs `work` with a function that inspects paths of the image. Blocks.

    `work` runs first on cached entries, and again on the mounted image if an entry is missing.

    Args:
        mounts: of a snapshot with the image's files; None while no snapshot exists.
        cache_key: the image's chain id.
        work: inspects a path after the directories above the path, and follows links itself.

    Raises:
        NotRemembered: an entry is missing, and `mounts` is None.
        DriverError: the snapshot cannot be mounted, or the kernel refuses a path.
        BaseException: the exception of `work`.
    """
    entries = _cache.setdefault(cache_key, {})

    def cached(path: str) -> Entry:
        if path not in entries:
            raise NotRemembered
        return entries[path]

    try:
        return work(cached)
    except NotRemembered:
        if mounts is None:
            raise

    def read(root: int) -> T:
        size = _size(entries)

        def inspect(path: str) -> Entry:
            nonlocal size
            if path in entries:
                return entries[path]
            result = _entry(root, path)
            if size <= _MAX_CHARACTERS:
                entries[path] = result
                size += len(path) + len(result.text)
            return result

        return work(inspect)

    try:
        return read_root(mounts, read)
    finally:
        _trim(cache_key, entries)


def _trim(cache_key: str, entries: dict[str, Entry]) -> None:
    """Keeps the cache small: images and jobs decide the number and the length of paths."""
    if _size(entries) > _MAX_CHARACTERS:
        _cache.pop(cache_key, None)
    while len(_cache) > _MAX_IMAGES:
        _cache.popitem(last=False)


def _size(entries: dict[str, Entry]) -> int:
    return sum(len(path) + len(entry.text) for path, entry in entries.items())


def _entry(root: int, path: str) -> Entry:
    try:
        return entry(root, path)
    except OSError as error:
        raise start_refused(
            f"mounts: cannot inspect {path[:128]!r} of the image: {error.strerror}",
            "mount at another path; a name has at most 255 bytes",
        ) from error


def entry(directory: int, path: str) -> Entry:
    """Returns the entry at a path below an open directory; does not follow the last name.

    Raises:
        OSError: a name before the last is a link, or the file system does not answer.
    """
    try:
        opened = syscalls.openat2(
            directory, path.lstrip("/"), os.O_PATH | os.O_NOFOLLOW, syscalls.INSIDE
        )
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    try:
        mode = os.fstat(opened).st_mode
        if stat.S_ISLNK(mode):
            return Entry(Kind.LINK, os.readlink("", dir_fd=opened))
        return DIRECTORY if stat.S_ISDIR(mode) else Entry(Kind.OTHER)
    finally:
        os.close(opened)
