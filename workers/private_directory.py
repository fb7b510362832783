"""The driver's state directory: a place that no other user can write to or exchange.

Root's programs lock, listen and make files there by name. So each directory on the way is looked at
before its entry is opened: an entry of a directory that another user can change is another user's.
Plugin, launcher and commands all ask here.
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
_EVERYBODY = ["0", "0", "4294967295"]


def opened(path: str, *, make: bool = False) -> int:
    """A descriptor of the directory, which is for its owner alone from now on.

    Args:
        path: of the directory. Links on the way count where only root or we can change them.
        make: whether to make what is not there.

    Raises:
        DriverError: code DENIED; another user owns or can change the directory or one above it.
        OSError: it is not there, or cannot be opened.
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
    """Checks that a directory is as `opened` wants it; one that is not there is nobody's.

    Raises:
        DriverError: code DENIED; or EXHAUSTED, the kernel has no descriptor for it.
    """
    try:
        os.close(opened(path))
    except FileNotFoundError:
        return
    except OSError as error:
        brief = f"the driver's state directory {path} cannot be looked at"
        raise exhausted(brief, error) from error


def trusts(uid: int) -> bool:
    """Returns whether what this user made or runs may be relied on: it is root's, or our own."""
    return uid == 0 or uid == os.geteuid()


def _parts(path: str) -> list[str]:
    """Names on the way, the last one first."""
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


def _writers(found: os.stat_result) -> int:
    """The bits of the mode by which others than root and the owner may write there."""
    bits = found.st_mode & _OTHERS
    return bits & ~stat.S_IWGRP if found.st_gid == 0 else bits


def _check(path: str, place: str, found: os.stat_result) -> None:
    if not trusts(found.st_uid) and not _is_root_outside(found.st_uid):
        raise _refused(path, f"{place} belongs to user {found.st_uid}")
    if _writers(found) and not found.st_mode & stat.S_ISVTX:
        raise _refused(path, f"users other than root may write to {place}")


def _is_root_outside(uid: int) -> bool:
    """Whether this is how the machine's root looks from within a user namespace of somebody's own.

    Other users look the same there, but whoever has such a namespace is not the machine's root.
    """
    return uid == _UNMAPPED and procfs.read("/proc/self/uid_map").split() != _EVERYBODY


def _check_entry(
    path: str, place: str, name: str, above: os.stat_result, entry: os.stat_result
) -> None:
    """In a sticky directory such as /tmp an entry is its owner's."""
    if _writers(above) and not trusts(entry.st_uid):
        raise _refused(path, f"{place.rstrip('/')}/{name} belongs to user {entry.st_uid}")


def _make_private(path: str, place: str, at: int) -> None:
    found = os.fstat(at)
    if found.st_uid != os.geteuid():
        raise _refused(path, f"{place} belongs to user {found.st_uid}")
    if _writers(found):
        raise _refused(path, f"users other than root may write to {place}")
    if stat.S_IMODE(found.st_mode) != _PRIVATE:
        os.fchmod(at, _PRIVATE)


def _refused(path: str, why: str) -> DriverError:
    return DriverError(
        f"the driver's state directory {path} cannot be used: another user could put sockets and"
        " files there",
        details=why,
        resolution="set state_dir to a directory that root alone can write to, below directories of"
        " that kind; or remove the one that is there, or change its owner and mode",
        code=Code.DENIED,
    )
