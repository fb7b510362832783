"""Removes a directory tree that a task could write to.

A task chooses depth and names of directories, targets of links and immutable files. Python's rmtree
recurses, and keeps a descriptor open for each level. The functions here move every directory to the
top of the tree and empty the directory there. So neither the depth nor the length of a path is
limited. All calls use descriptors, follow no link and enter no mount.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import struct
from collections.abc import Callable
from pathlib import Path

from containerd import syscalls

_INSIDE = syscalls.INSIDE | syscalls.RESOLVE_NO_XDEV
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# linux/fs.h; the kernel reads and writes 32 bits, although the request numbers encode 64.
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
_IMMUTABLE_OR_APPEND = 0x10 | 0x20
_MOUNTED = {errno.EBUSY, errno.EXDEV}


def remove(directory: Path) -> str:
    """Removes a directory with all its contents; does nothing if the directory is gone. Blocks.

    A file that cannot be removed stays, and the removal goes on.

    Returns:
        The first path that stays, and the reason; empty where nothing stays.
    """
    try:
        parent = os.open(directory.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return _problem(directory, error)
    try:
        return _removed(parent, directory)
    finally:
        os.close(parent)


def _removed(parent: int, directory: Path) -> str:
    try:
        top = syscalls.openat2(parent, directory.name, _DIRECTORY, _INSIDE)
        try:
            stays = _Tree(top, directory).empty()
        finally:
            os.close(top)
        if not stays:
            _remove_entry(os.rmdir, parent, directory.name)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return _problem(directory, error)
    return stays


class _Tree:
    """A tree that is being removed.

    Args:
        top: a descriptor of the tree's top directory.
        path: the top directory's path, for messages.
    """

    def __init__(self, top: int, path: Path) -> None:
        self._top = top
        self._path = path
        self._prefix = f".{secrets.token_hex(8)}-"
        self._moved = 0
        self._done = 0
        self._stays: dict[str, str] = {}

    def empty(self) -> str:
        """Removes all contents; returns the first path that stays, and the reason."""
        before = -1
        while before != self._done:
            before = self._done
            with os.scandir(self._top) as entries:
                for entry in entries:
                    if entry.name not in self._stays:
                        self._take(entry.name)
        return next(iter(self._stays.values()), "")

    def _take(self, name: str) -> None:
        """Removes an entry of the top directory."""
        try:
            if not _unlinked(self._top, name):
                stays = self._level(name)
                if stays:
                    self._stays[name] = stays
                    return
                _remove_entry(os.rmdir, self._top, name)
            self._done += 1
        except FileNotFoundError:
            return
        except OSError as error:
            # "Not empty" is no failure: an entry was created meanwhile, or is not listed yet.
            if error.errno != errno.ENOTEMPTY:
                self._stays[name] = _problem(self._path / name, error)

    def _level(self, name: str) -> str:
        """Empties a directory of the top, and moves inner directories to the top."""
        stays = ""
        directory = syscalls.openat2(self._top, name, _DIRECTORY, _INSIDE)
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    try:
                        if not _unlinked(directory, entry.name):
                            self._move(directory, entry.name)
                        self._done += 1
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        stays = stays or _problem(self._path / name / entry.name, error)
        finally:
            os.close(directory)
        return stays

    def _move(self, directory: int, name: str) -> None:
        new = f"{self._prefix}{self._moved}"
        self._moved += 1
        try:
            os.rename(name, new, src_dir_fd=directory, dst_dir_fd=self._top)
        except PermissionError:
            _clear_flags_of(directory, name)
            os.rename(name, new, src_dir_fd=directory, dst_dir_fd=self._top)


def _unlinked(directory: int, name: str) -> bool:
    """Removes a file; returns False for a directory.

    Raises:
        OSError: the file stays.
    """
    try:
        _remove_entry(os.unlink, directory, name)
    except IsADirectoryError:
        return False
    return True


def _remove_entry(call: Callable[..., None], directory: int, name: str) -> None:
    """Calls os.unlink or os.rmdir; after a refusal again, without the flags that forbid a removal.

    Raises:
        OSError: the entry stays.
    """
    try:
        call(name, dir_fd=directory)
    except PermissionError:
        _clear_flags_of(directory, name)
        call(name, dir_fd=directory)


def _clear_flags_of(directory: int, name: str) -> None:
    """Clears the flags "immutable" and "append only" of an entry and of the entry's directory."""
    _clear_flags(directory)
    with contextlib.suppress(OSError):
        entry = syscalls.open_plain(directory, name, _INSIDE)
        try:
            _clear_flags(entry)
        finally:
            os.close(entry)


def _clear_flags(descriptor: int) -> None:
    # File systems without such flags refuse the request.
    with contextlib.suppress(OSError):
        (flags,) = struct.unpack("=I", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8))[:4])
        if flags & _IMMUTABLE_OR_APPEND:
            wanted = struct.pack("=II", flags & ~_IMMUTABLE_OR_APPEND, 0)
            fcntl.ioctl(descriptor, _SET_FLAGS, wanted)


def _problem(path: Path, error: OSError) -> str:
    why = "a file system is mounted there" if error.errno in _MOUNTED else error.strerror
    return f"{path}: {why}"
