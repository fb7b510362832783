"""Resolves the user of a task, by name or number, in the image's own passwd and group.

All kinds of images and the preview of a spec use `resolve` or `lookup`. Links of the image are
resolved inside the image (openat2, RESOLVE_IN_ROOT). The image decides the size of the files, and
the job the number of groups, so a thread reads the files, each file once and line by line.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from containerd import syscalls
from containerd.rootfs.view import read_root
from proto.errors import DriverError, start_refused
from proto.values import dataclass

if TYPE_CHECKING:
    from containerd.api.records import Mount

_FILE_LIMIT_BYTES = 1024 * 1024
_MAX_CACHE_BYTES = 1024 * 1024
_MAX_ID = 2**32 - 2
_MAX_GROUPS = 65536  # the kernel's NGROUPS_MAX
# str.isdecimal accepts digits of any script, and any length. An id has at most ten ASCII digits.
_ID = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedUser:
    """The kernel's numbers of a user, and the home directory; empty if passwd names none.

    additional_gids begin with gid. Without gid in the list, a process could leave its group and
    reach files that deny access to the group (CVE-2023-25173).
    """

    uid: int
    gid: int
    additional_gids: tuple[int, ...] = ()
    home: str = ""


@dataclass(frozen=True, slots=True)
class Accounts:
    """The texts of an image's /etc/passwd and /etc/group; empty for a missing file.

    cut names the files that are too long; the texts have only the first part of these files.
    """

    passwd: str
    group: str
    cut: tuple[str, ...] = ()


class _Cache:
    """The last resolved users, by chain id, user and groups.

    A start with a cached user mounts nothing. The bound is in bytes, because the image and the job
    decide the size of an entry.
    """

    def __init__(self) -> None:
        self._users: OrderedDict[tuple[str, str, tuple[str, ...]], ResolvedUser] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[str, str, tuple[str, ...]]) -> ResolvedUser | None:
        if key in self._users:
            self._users.move_to_end(key)
        return self._users.get(key)

    def keep(self, key: tuple[str, str, tuple[str, ...]], user: ResolvedUser) -> None:
        if key in self._users:
            return
        self._users[key] = user
        self._bytes += _size(key, user)
        while self._bytes > _MAX_CACHE_BYTES:
            self._bytes -= _size(*self._users.popitem(last=False))


def _size(key: tuple[str, str, tuple[str, ...]], user: ResolvedUser) -> int:
    """Estimates an entry's bytes: Python's objects, and four bytes for each character."""
    chain, name, groups = key
    texts = (chain, name, user.home, *groups)
    return 1024 + sum(64 + 4 * len(text) for text in texts) + 40 * len(user.additional_gids)


# The cache belongs to the process: the files of a chain id never change, so an entry holds for
# every caller and needs no invalidation.
_cache = _Cache()


def remembered(
    user: str, *, cache_key: str, more_groups: tuple[str, ...] = ()
) -> ResolvedUser | None:
    """Returns the cached result of `resolve`; None if `resolve` would have to read the image."""
    return _cache.get((cache_key, user, more_groups))


async def resolve(
    user: str, mounts: tuple[Mount, ...], *, cache_key: str, more_groups: tuple[str, ...] = ()
) -> ResolvedUser:
    """Resolves `user`, `uid`, `user:group` or any mix; empty means root.

    Args:
        user: the text in the job or the image.
        mounts: of a snapshot with the image's files.
        cache_key: the image's chain id.
        more_groups: names or numbers of groups beside the user's own.

    Raises:
        DriverError: code INVALID; `no users found` or `no groups found`.
    """
    key = cache_key, user, more_groups
    resolved = _cache.get(key)
    if resolved is None:
        resolved = await asyncio.to_thread(_resolve, user, mounts, more_groups)
        _cache.keep(key, resolved)
    return resolved


def _resolve(user: str, mounts: tuple[Mount, ...], more_groups: tuple[str, ...]) -> ResolvedUser:
    return lookup(user, read_accounts(mounts), more_groups)


def lookup(user: str, accounts: Accounts, more_groups: tuple[str, ...] = ()) -> ResolvedUser:
    """Looks a user up in passwd and group by the rules of Docker and containerd. Pure.

    A number needs no entry. A user without a group gets the entry's group (0 without an entry) and
    every group that lists the user's name; an explicit group replaces both. more_groups are added.

    Raises:
        DriverError: code INVALID; see `resolve`.
    """
    name, colon, group = user.partition(":")
    name = name or "root"
    entry = _passwd_entry(name, accounts.passwd)
    if entry is None and not name.isdecimal():
        if name != "root":
            raise _unknown("user", name, "no users found", cut=accounts.cut)
        entry = ["root", "", "0", "0", "", "/root"]
    uid = _number(entry[2] if entry else name, "user", name)
    wanted = (group, *more_groups) if group else more_groups
    member = entry[0] if entry and not (colon and group) else ""
    gids, of_member = _groups(wanted, member, accounts)
    if colon and group:
        gid, *more = gids
    else:
        gid, more = _number(entry[3], "group", name) if entry else 0, gids
    every = tuple(dict.fromkeys((gid, *of_member, *more)))
    if len(every) > _MAX_GROUPS:
        raise _unknown("user", name, f"the user has more than {_MAX_GROUPS} groups")
    return ResolvedUser(uid=uid, gid=gid, additional_gids=every, home=_home(entry))


def _lines(text: str) -> Iterator[list[str]]:
    """Yields the fields of each line; only line feeds and colons separate, as in libc and Go."""
    for line in io.StringIO(text, newline="\n"):
        yield line.strip().split(":")


def _passwd_entry(name: str, passwd: str) -> list[str] | None:
    number = _canonical(name)
    for fields in _lines(passwd):
        if len(fields) >= 4 and (  # noqa: PLR2004
            fields[0] == name or (number and _canonical(fields[2]) == number)
        ):
            return fields
    return None


def _groups(
    wanted: tuple[str, ...], member: str, accounts: Accounts
) -> tuple[list[int], list[int]]:
    """Returns the numbers of the wanted groups in their order, and of the member's groups.

    Reads the file once for any number of groups; the first line with a name or number counts.
    """
    sought = {key for name in wanted for key in (name, _canonical(name)) if key}
    lines: dict[str, tuple[int, str]] = {}
    of_member: list[int] = []
    for line, fields in enumerate(_lines(accounts.group) if sought or member else ()):
        if len(fields) < 3:  # noqa: PLR2004
            continue
        for key in sought.intersection((fields[0], _canonical(fields[2]))):
            lines.setdefault(key, (line, fields[2]))
        if member and len(fields) > 3 and _is_id(fields[2]) and member in fields[3].split(","):  # noqa: PLR2004
            of_member.append(int(fields[2]))
    return [_gid(name, lines, accounts.cut) for name in wanted], of_member


def _gid(name: str, lines: dict[str, tuple[int, str]], cut: tuple[str, ...]) -> int:
    matches = [lines[key] for key in (name, _canonical(name)) if key in lines]
    if matches:
        return _number(min(matches)[1], "group", name)
    if name.isdecimal():
        return _number(name, "group", name)
    raise _unknown("group", name, "no groups found", cut=cut)


def _canonical(text: str) -> str:
    """Returns a number without leading zeros; empty for other texts."""
    return text.lstrip("0") or "0" if _ID.fullmatch(text) else ""


def _number(text: str, what: str, name: str) -> int:
    if not _is_id(text):
        raise _unknown(what, name, f"{text[:32]!r} is no id")
    return int(text)


def _is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None and int(text) <= _MAX_ID


def _home(entry: list[str] | None) -> str:
    return entry[5] if entry and len(entry) > 5 else ""  # noqa: PLR2004


def _unknown(what: str, name: str, text: str, *, cut: tuple[str, ...] = ()) -> DriverError:
    part = f" in the first {_FILE_LIMIT_BYTES >> 20} MiB of {' and '.join(cut)}" if cut else ""
    return start_refused(
        text,
        f"use a {what} of the image, or a number",
        details=f"the image has no {what} {name[:64]!r}{part}",
    )


def read_accounts(mounts: tuple[Mount, ...]) -> Accounts:
    """Reads passwd and group of a snapshot. Blocks: call it in an executor.

    Raises:
        DriverError: the snapshot cannot be mounted or a file cannot be read.
    """
    try:
        return read_root(mounts, read_both)
    except OSError as error:
        raise DriverError(
            "cannot read the image's /etc/passwd and /etc/group",
            details=f"{error.strerror or error}",
            resolution="build the image with plain files at /etc/passwd and /etc/group",
        ) from error


def read_both(root: int, resolve_flags: int = 0) -> Accounts:
    """Reads passwd and group below a root directory. Blocks: call `read_both` in an executor.

    Args:
        root: descriptor of the directory.
        resolve_flags: RESOLVE_* flags beside the fixed flags.

    Raises:
        DriverError: a file is not a regular file.
        OSError: a file cannot be read.
    """
    paths = ("etc/passwd", "etc/group")
    passwd, group = (_read(root, path, resolve_flags) for path in paths)
    cut = tuple(
        f"/{path}"
        for path, text in zip(paths, (passwd, group), strict=True)
        if len(text) > _FILE_LIMIT_BYTES
    )
    return Accounts(_whole_lines(passwd), _whole_lines(group), cut)


def _whole_lines(text: bytes) -> str:
    """Returns the whole lines within the limit: half a number would be another number."""
    if len(text) > _FILE_LIMIT_BYTES:
        text = text[: text.rfind(b"\n", 0, _FILE_LIMIT_BYTES) + 1]
    return text.decode(errors="replace")


def _read(root: int, path: str, resolve_flags: int) -> bytes:
    """Reads the limit and a byte more of a file of the image; empty for a missing file."""
    try:
        # The file may be a FIFO or a device, so the open must not block or have effects.
        inside = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
        descriptor = syscalls.open_plain(root, path, inside | resolve_flags)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            # The runtime reads the file in the container, and would wait for a FIFO's writer.
            raise start_refused(
                f"the image's /{path} is not a regular file",
                f"build the image with a regular file at /{path}, or with none",
            )
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(_FILE_LIMIT_BYTES + 1)
    finally:
        os.close(descriptor)
