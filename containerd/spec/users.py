"""The user of a task: by name or number, looked up in the image's own passwd and group.

Registry images, archives, images that were there before and the preview of a spec all ask here.
Links inside the image are resolved inside the image (openat2, RESOLVE_IN_ROOT). An image sizes its
files and a job its list of groups, so both are read in a thread, each file once and line by line.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from containerd import syscalls
from containerd.rootfs.view import look
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.api.records import Mount

_FILE_LIMIT_BYTES = 1024 * 1024
_REMEMBERED_BYTES = 1024 * 1024
_MAX_ID = 2**32 - 2
_MAX_GROUPS = 65536  # the kernel's NGROUPS_MAX
# Digits of any script and any number are decimals to Python; the kernel's ids have ten of these.
_ID = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedUser:
    """Numbers that the kernel takes, and the home directory if passwd names one.

    additional_gids begin with gid: what a process may reach by a group that it is not in, as a
    "no" to that group, would be open to it otherwise (CVE-2023-25173).
    """

    uid: int
    gid: int
    additional_gids: tuple[int, ...] = ()
    home: str = ""


@dataclass(frozen=True, slots=True)
class Accounts:
    """The texts of an image's /etc/passwd and /etc/group; empty where there is none.

    cut names the files of which only the first part was read.
    """

    passwd: str
    group: str
    cut: tuple[str, ...] = ()


class _Memory:
    """Users that were found last, by chain id and what was asked.

    So a start of a known image mounts nothing. The bound is in bytes: image and job size an entry.
    """

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, str, tuple[str, ...]], ResolvedUser] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[str, str, tuple[str, ...]]) -> ResolvedUser | None:
        if key in self._found:
            self._found.move_to_end(key)
        return self._found.get(key)

    def keep(self, key: tuple[str, str, tuple[str, ...]], user: ResolvedUser) -> None:
        if key in self._found:
            return
        self._found[key] = user
        self._bytes += _size(key, user)
        while self._bytes > _REMEMBERED_BYTES:
            self._bytes -= _size(*self._found.popitem(last=False))


def _size(key: tuple[str, str, tuple[str, ...]], user: ResolvedUser) -> int:
    """About what an entry takes: Python's objects, and up to four bytes for each character."""
    chain, name, groups = key
    texts = (chain, name, user.home, *groups)
    return 1024 + sum(64 + 4 * len(text) for text in texts) + 40 * len(user.additional_gids)


_memory = _Memory()


def remembered(
    user: str, *, cache_key: str, more_groups: tuple[str, ...] = ()
) -> ResolvedUser | None:
    """Returns what `resolve` has found before for the same image; None where it has to look."""
    return _memory.get((cache_key, user, more_groups))


async def resolve(
    user: str, mounts: tuple[Mount, ...], *, cache_key: str, more_groups: tuple[str, ...] = ()
) -> ResolvedUser:
    """Resolves `user`, `uid`, `user:group` or any mix; empty is root.

    Args:
        user: what the job or the image says.
        mounts: of a snapshot that has the image's files.
        cache_key: the image's chain id: the files of one chain never change.
        more_groups: names or numbers of groups beside the user's own.

    Raises:
        DriverError: code INVALID; `no users found` or `no groups found`.
    """
    key = cache_key, user, more_groups
    found = _memory.get(key)
    if found is None:
        found = await asyncio.to_thread(_resolve, user, mounts, more_groups)
        _memory.keep(key, found)
    return found


def _resolve(user: str, mounts: tuple[Mount, ...], more_groups: tuple[str, ...]) -> ResolvedUser:
    return lookup(user, read_accounts(mounts), more_groups)


def lookup(user: str, accounts: Accounts, more_groups: tuple[str, ...] = ()) -> ResolvedUser:
    """The pure part of `resolve`: what Docker and containerd make of a user.

    A number needs no entry. A user without a group gets the entry's group (0 without an entry)
    and every group that lists its name; an explicit group replaces both. more_groups come on top.

    Raises:
        DriverError: code INVALID; see `resolve`.
    """
    name, colon, group = user.partition(":")
    name = name or "root"
    entry = _passwd_entry(name, accounts.passwd)
    if entry is None and not name.isdecimal():
        if name != "root":
            raise _unknown("user", name, "no users found", accounts.cut)
        entry = ["root", "", "0", "0", "", "/root"]
    uid = _number(entry[2] if entry else name, "user", name)
    wanted = (group, *more_groups) if group else more_groups
    member = entry[0] if entry and not (colon and group) else ""
    gids, own = _groups(wanted, member, accounts)
    if colon and group:
        gid, *more = gids
    else:
        gid, more = _number(entry[3], "group", name) if entry else 0, gids
    every = tuple(dict.fromkeys((gid, *own, *more)))
    if len(every) > _MAX_GROUPS:
        raise _unknown("user", name, f"it has more than {_MAX_GROUPS} groups")
    return ResolvedUser(uid=uid, gid=gid, additional_gids=every, home=_home(entry))


def _lines(text: str) -> Iterator[list[str]]:
    """The fields of each line, as the C library and Go part them: at no other sign than these."""
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
    """The numbers of the wanted groups in their order, and those of the groups of the member.

    One pass over the file, however many are wanted; the first line with a name or number counts.
    """
    sought = {key for name in wanted for key in (name, _canonical(name)) if key}
    found: dict[str, tuple[int, str]] = {}
    own: list[int] = []
    for line, fields in enumerate(_lines(accounts.group) if sought or member else ()):
        if len(fields) < 3:  # noqa: PLR2004
            continue
        for key in sought.intersection((fields[0], _canonical(fields[2]))):
            found.setdefault(key, (line, fields[2]))
        if member and len(fields) > 3 and _is_id(fields[2]) and member in fields[3].split(","):  # noqa: PLR2004
            own.append(int(fields[2]))
    return [_gid(name, found, accounts.cut) for name in wanted], own


def _gid(name: str, found: dict[str, tuple[int, str]], cut: tuple[str, ...]) -> int:
    lines = [found[key] for key in (name, _canonical(name)) if key in found]
    if lines:
        return _number(min(lines)[1], "group", name)
    if name.isdecimal():
        return _number(name, "group", name)
    raise _unknown("group", name, "no groups found", cut)


def _canonical(text: str) -> str:
    """The number without leading zeros; empty for what is no number."""
    return text.lstrip("0") or "0" if _ID.fullmatch(text) else ""


def _number(text: str, what: str, name: str) -> int:
    if not _is_id(text):
        raise _unknown(what, name, f"{text[:32]!r} is no id")
    return int(text)


def _is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None and int(text) <= _MAX_ID


def _home(entry: list[str] | None) -> str:
    return entry[5] if entry and len(entry) > 5 else ""  # noqa: PLR2004


def _unknown(what: str, name: str, why: str, cut: tuple[str, ...] = ()) -> DriverError:
    part = f" in the first {_FILE_LIMIT_BYTES >> 20} MiB of {' and '.join(cut)}" if cut else ""
    return DriverError(
        f"Error in creating container: {why}",
        details=f"the image has no {what} {name[:64]!r}{part}",
        resolution=f"use a {what} of the image, or a number",
        code=Code.INVALID,
    )


def read_accounts(mounts: tuple[Mount, ...]) -> Accounts:
    """Reads passwd and group of a snapshot. Blocks: call it in an executor.

    Raises:
        DriverError: the snapshot cannot be mounted or a file cannot be read.
    """
    try:
        return look(mounts, _read_both)
    except OSError as error:
        raise DriverError(
            "the image's users cannot be read",
            details=f"{error.strerror or error}",
            resolution="build the image with plain files at /etc/passwd and /etc/group",
        ) from error


def _read_both(root: int) -> Accounts:
    paths = ("etc/passwd", "etc/group")
    passwd, group = (_read(root, path) for path in paths)
    cut = tuple(
        f"/{path}"
        for path, text in zip(paths, (passwd, group), strict=True)
        if len(text) > _FILE_LIMIT_BYTES
    )
    return Accounts(_whole_lines(passwd), _whole_lines(group), cut)


def _whole_lines(text: bytes) -> str:
    """The text within the limit, without a last line that is cut: half a number is another one."""
    if len(text) > _FILE_LIMIT_BYTES:
        text = text[: text.rfind(b"\n", 0, _FILE_LIMIT_BYTES) + 1]
    return text.decode(errors="replace")


def _read(root: int, path: str) -> bytes:
    """The start of a file of the image, with a byte beyond the limit; empty without a file."""
    try:
        # An image may have a FIFO or a device there.
        descriptor = syscalls.open_plain(
            root, path, syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
        )
    except (FileNotFoundError, NotADirectoryError):
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            # The runtime reads it too, in the container, and would wait for a FIFO's writer.
            raise DriverError(
                f"Error in creating container: the image's /{path} is no file",
                resolution="build the image with a plain file there, or with none",
                code=Code.INVALID,
            )
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(_FILE_LIMIT_BYTES + 1)
    finally:
        os.close(descriptor)
