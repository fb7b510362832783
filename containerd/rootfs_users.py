"""Whom a task runs as: a user by name or number, looked up in the image's own passwd and group.

Links inside the image are resolved inside the image (openat2, RESOLVE_IN_ROOT).
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from containerd import kernel, rootfs_view
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.records import Mount

_FILE_LIMIT_BYTES = 1024 * 1024
_REMEMBERED = 64
_MAX_ID = 2**32 - 2
# Digits of any script and any number are decimals to Python; the kernel's ids have ten of these.
_ID = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedUser:
    """Numbers that the kernel takes, and the home directory if passwd names one."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...] = ()
    home: str = ""


@dataclass(frozen=True, slots=True)
class Accounts:
    """The texts of an image's /etc/passwd and /etc/group; empty where there is none."""

    passwd: str
    group: str


_known: OrderedDict[str, Accounts] = OrderedDict()


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
    accounts = _known.get(cache_key)
    if accounts is None:
        accounts = await asyncio.get_running_loop().run_in_executor(None, read_accounts, mounts)
        _known[cache_key] = accounts
        while len(_known) > _REMEMBERED:
            _known.popitem(last=False)
    return lookup(user, accounts, more_groups)


def lookup(user: str, accounts: Accounts, more_groups: tuple[str, ...] = ()) -> ResolvedUser:
    """The pure part of `resolve`: what Docker and containerd make of a user.

    A number needs no entry. A user without a group gets the entry's group (0 without an entry)
    and every group that lists its name; an explicit group replaces both. more_groups come on top.
    """
    name, colon, group = user.partition(":")
    name = name or "root"
    entry = _passwd_entry(name, accounts.passwd)
    if entry is None and not name.isdecimal():
        if name != "root":
            raise _unknown("user", name, "no users found")
        entry = ["root", "", "0", "0", "", "/root"]
    uid = _number(entry[2] if entry else name, "user", name)
    more = tuple(_gid(given, accounts.group) for given in more_groups)
    own: tuple[int, ...] = ()
    if colon and group:
        gid = _gid(group, accounts.group)
    else:
        gid = _number(entry[3], "group", name) if entry else 0
        own = _groups_with(entry[0], accounts.group) if entry else ()
    extra = tuple(dict.fromkeys((*own, *more)))
    return ResolvedUser(uid=uid, gid=gid, additional_gids=extra, home=_home(entry))


def _passwd_entry(name: str, passwd: str) -> list[str] | None:
    numeric = name.isdecimal()
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) >= 4 and (fields[0] == name or (numeric and fields[2] == name)):  # noqa: PLR2004
            return fields
    return None


def _gid(group: str, text: str) -> int:
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and (fields[0] == group or fields[2] == group):  # noqa: PLR2004
            return _number(fields[2], "group", group)
    if group.isdecimal():
        return _number(group, "group", group)
    raise _unknown("group", group, "no groups found")


def _groups_with(name: str, text: str) -> tuple[int, ...]:
    found: list[int] = []
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 4 and name in fields[3].split(",") and _is_id(fields[2]):  # noqa: PLR2004
            found.append(int(fields[2]))
    return tuple(found)


def _number(text: str, what: str, name: str) -> int:
    if not _is_id(text):
        raise _unknown(what, name, f"{text[:32]!r} is no id")
    return int(text)


def _is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None and int(text) <= _MAX_ID


def _home(entry: list[str] | None) -> str:
    return entry[5] if entry and len(entry) > 5 else ""  # noqa: PLR2004


def _unknown(what: str, name: str, why: str) -> DriverError:
    return DriverError(
        f"Error in creating container: {why}",
        details=f"the image has no {what} {name[:64]!r}",
        resolution=f"use a {what} of the image, or a number",
        code=Code.INVALID,
    )


def read_accounts(mounts: tuple[Mount, ...]) -> Accounts:
    """Reads passwd and group of a snapshot. Blocks: call it in an executor.

    Raises:
        DriverError: the snapshot cannot be mounted or a file cannot be read.
    """
    try:
        return rootfs_view.look(
            mounts, lambda root: Accounts(_read(root, "etc/passwd"), _read(root, "etc/group"))
        )
    except OSError as error:
        raise DriverError(
            "the image's users cannot be read",
            details=f"{error.strerror or error}",
            resolution="build the image with plain files at /etc/passwd and /etc/group",
        ) from error


def _read(root: int, path: str) -> str:
    """A regular file of the image; empty where there is none."""
    try:
        # An image may have a FIFO or a device there.
        descriptor = kernel.open_plain(
            root, path, kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS
        )
    except (FileNotFoundError, NotADirectoryError):
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            # The runtime reads it too, in the container, and would wait for a FIFO's writer.
            raise DriverError(
                f"Error in creating container: the image's /{path} is no file",
                resolution="build the image with a plain file there, or with none",
                code=Code.INVALID,
            )
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(_FILE_LIMIT_BYTES).decode(errors="replace")
    finally:
        os.close(descriptor)
