"""Checks of the driver's state directory, which no other user may write to or exchange.

Root's programs take locks, listen and create files in the directory by name. Another user with
write access to a directory on the way can exchange the next directory. So each directory on the way
is checked before the next directory is opened. Plugin, launcher and commands use this module.
"""

from __future__ import annotations

import os
import stat

from proto.errors import Code, DriverError
from proto.exhaustion import exhausted
from workers import procfs

_LINKS = 40
_WALK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_PRIVATE = 0o700
_PARENT = 0o755
_UNMAPPED = 65534


def opened(path: str, *, make: bool = False) -> int:
    """Opens the directory, checks all directories on the way, and sets the mode to 0700.

    Args:
        path: path of the directory. A link on the way is followed if only root or the user of this
            process can change the link.
        make: create missing directories.

    Returns:
        A descriptor of the directory.

    Raises:
        DriverError: code DENIED; another user owns or can change the directory or a parent.
        OSError: the directory is missing, or cannot be opened.
    """
    at = os.open("/", _WALK)
    place, links = "/", 0
    todo = _parts(os.path.abspath(path))  # noqa: PTH100 - workers do without pathlib
    try:
        while todo:
            name = todo.pop()
            _check(path, place, os.fstat(at))
            entry = _entry(at, name, _PARENT if todo else _PRIVATE, make=make)
            _check_entry(path, place, name, os.fstat(at), entry)
            if stat.S_ISLNK(entry.st_mode) and links < _LINKS:
                links += 1
                target = os.readlink(name, dir_fd=at)
                todo += _parts(target)
                if target.startswith("/"):
                    at, place = _swap(at, os.open("/", _WALK)), "/"
                continue
            flags = _WALK if todo else os.O_RDONLY | _WALK & ~os.O_PATH
            at = _swap(at, os.open(name, flags, dir_fd=at))
            place = os.path.normpath(f"{place.rstrip('/')}/{name}")
        _make_private(path, place, at)
    except BaseException:
        os.close(at)
        raise
    return at


def check(path: str) -> None:
    """Checks a directory as `opened` does. A missing directory passes.

    Raises:
        DriverError: code DENIED; or EXHAUSTED, no descriptor is left.
    """
    try:
        os.close(opened(path))
    except FileNotFoundError:
        return
    except OSError as error:
        brief = f"the driver's state directory {path} cannot be checked"
        raise exhausted(brief, error) from error


def trusts(uid: int) -> bool:
    """Returns whether the user is root or the user of this process."""
    return uid == 0 or uid == os.geteuid()


def _parts(path: str) -> list[str]:
    """Returns the names on the way, the last name first."""
    names = []
    for name in path.split("/"):
        if name not in {"", "."}:
            names.append(name)  # noqa: PERF401 - a comprehension costs each worker a page
    names.reverse()
    return names


def _swap(old: int, new: int) -> int:
    os.close(old)
    return new


def _entry(at: int, name: str, mode: int, *, make: bool) -> os.stat_result:
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        if not make:
            raise
    try:  # noqa: SIM105 - workers do without contextlib
        os.mkdir(name, mode, dir_fd=at)
    except FileExistsError:
        pass
    return os.stat(name, dir_fd=at, follow_symlinks=False)


def _writers(status: os.stat_result) -> int:
    """Returns the mode bits that let users other than root and the owner write there."""
    bits = status.st_mode & _OTHERS
    return bits & ~stat.S_IWGRP if status.st_gid == 0 else bits


def _check(path: str, place: str, status: os.stat_result) -> None:
    if not trusts(status.st_uid) and not _is_root_outside(status.st_uid):
        raise _refused(path, f"{place} belongs to user {status.st_uid}")
    if _writers(status) and not status.st_mode & stat.S_ISVTX:
        raise _refused(path, f"users other than root may write to {place}")


def _is_root_outside(uid: int) -> bool:
    """Returns whether the id may be the machine's root, seen from inside a user namespace.

    Other users of the machine have the same id there. But a process in such a namespace does not
    run as the machine's root.
    """
    return uid == _UNMAPPED and procfs.in_user_namespace()


def _check_entry(
    path: str, place: str, name: str, above: os.stat_result, entry: os.stat_result
) -> None:
    """Refuses another user's entry of a sticky directory such as /tmp."""
    if _writers(above) and not trusts(entry.st_uid):
        raise _refused(path, f"{place.rstrip('/')}/{name} belongs to user {entry.st_uid}")


def _make_private(path: str, place: str, at: int) -> None:
    status = os.fstat(at)
    if status.st_uid != os.geteuid():
        raise _refused(path, f"{place} belongs to user {status.st_uid}")
    if _writers(status):
        raise _refused(path, f"users other than root may write to {place}")
    if stat.S_IMODE(status.st_mode) != _PRIVATE:
        os.fchmod(at, _PRIVATE)


def _refused(path: str, why: str) -> DriverError:
    return DriverError(
        f"the driver's state directory {path} cannot be used: another user could put sockets and"
        " files there",
        details=why,
        resolution="set state_dir to a directory that only root can write to, below directories"
        f" that only root can write to; or remove {path}, or change its owner and mode",
        code=Code.DENIED,
    )
