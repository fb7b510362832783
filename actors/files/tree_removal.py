"""Removing a directory tree that a task could write to.

A task chooses how deep its directories are, what they are called, where a link leads, which file
is immutable. Python's own rmtree recurses and holds a descriptor for each level. Here every
directory that is found is moved to the top of the tree and emptied there, so neither depth nor the
length of a path counts. Everything goes by descriptors. No link is followed, no mount is entered.
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

_INSIDE = (
    syscalls.RESOLVE_BENEATH
    | syscalls.RESOLVE_NO_SYMLINKS
    | syscalls.RESOLVE_NO_MAGICLINKS
    | syscalls.RESOLVE_NO_XDEV
)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# linux/fs.h; the kernel reads and writes 32 bits, although the numbers say 64.
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
_IMMUTABLE_OR_APPEND = 0x10 | 0x20
_MOUNTED = {errno.EBUSY, errno.EXDEV}


def remove(directory: Path) -> str:
    """Removes a directory with all that is in it; gone is done. Blocks.

    What cannot be removed stays, and the rest goes on.

    Returns:
        The first thing that stays, and why; empty where nothing stays.
    """
    try:
        parent = os.open(directory.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return _words(directory, error)
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
            _insisting(os.rmdir, parent, directory.name)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return _words(directory, error)
    return stays


class _Tree:
    """One tree.

    Args:
        top: a descriptor of the directory that is to be emptied.
        path: where the directory is, for people.
    """

    def __init__(self, top: int, path: Path) -> None:
        self._top = top
        self._path = path
        self._prefix = f".{secrets.token_hex(8)}-"
        self._moved = 0
        self._done = 0
        self._stays: dict[str, str] = {}

    def empty(self) -> str:
        """Removes all that is in it; gives the first thing that stays, and why."""
        before = -1
        while before != self._done:
            before = self._done
            with os.scandir(self._top) as entries:
                for entry in entries:
                    if entry.name not in self._stays:
                        self._take(entry.name)
        return next(iter(self._stays.values()), "")

    def _take(self, name: str) -> None:
        """Removes one entry of the top."""
        try:
            if not _unlinked(self._top, name):
                stays = self._level(name)
                if stays:
                    self._stays[name] = stays
                    return
                _insisting(os.rmdir, self._top, name)
            self._done += 1
        except FileNotFoundError:
            return
        except OSError as error:
            # Not empty without a failure: something was made meanwhile, or not yet listed.
            if error.errno != errno.ENOTEMPTY:
                self._stays[name] = _words(self._path / name, error)

    def _level(self, name: str) -> str:
        """Empties a directory of the top: its directories move to the top."""
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
                        stays = stays or _words(self._path / name / entry.name, error)
        finally:
            os.close(directory)
        return stays

    def _move(self, directory: int, name: str) -> None:
        new = f"{self._prefix}{self._moved}"
        self._moved += 1
        try:
            os.rename(name, new, src_dir_fd=directory, dst_dir_fd=self._top)
        except PermissionError:
            _unfastened(directory, name)
            os.rename(name, new, src_dir_fd=directory, dst_dir_fd=self._top)


def _unlinked(directory: int, name: str) -> bool:
    """Removes what is no directory; False for a directory.

    Raises:
        OSError: it stays.
    """
    try:
        _insisting(os.unlink, directory, name)
    except IsADirectoryError:
        return False
    return True


def _insisting(call: Callable[..., None], directory: int, name: str) -> None:
    """Calls os.unlink or os.rmdir, a second time without the flags that forbid it.

    Raises:
        OSError: it stays.
    """
    try:
        call(name, dir_fd=directory)
    except PermissionError:
        _unfastened(directory, name)
        call(name, dir_fd=directory)


def _unfastened(directory: int, name: str) -> None:
    """Takes the flags "immutable" and "append only" from an entry and from its directory."""
    _without_flags(directory)
    with contextlib.suppress(OSError):
        entry = syscalls.open_plain(directory, name, _INSIDE)
        try:
            _without_flags(entry)
        finally:
            os.close(entry)


def _without_flags(descriptor: int) -> None:
    # File systems without such flags refuse the question.
    with contextlib.suppress(OSError):
        (flags,) = struct.unpack("=I", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8))[:4])
        if flags & _IMMUTABLE_OR_APPEND:
            wanted = struct.pack("=II", flags & ~_IMMUTABLE_OR_APPEND, 0)
            fcntl.ioctl(descriptor, _SET_FLAGS, wanted)


def _words(path: Path, error: OSError) -> str:
    why = "something is mounted there" if error.errno in _MOUNTED else error.strerror
    return f"{path}: {why}"
