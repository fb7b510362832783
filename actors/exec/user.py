"""The user of a command in a running task, resolved in the container's own passwd and group."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from containerd import syscalls
from containerd.spec import users
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.documents import Document
    from containerd.spec.users import Accounts, ResolvedUser

_NONE = users.Accounts("", "")
_SHOWN = 24


def resolve(user: str, container_id: str, pid: int) -> ResolvedUser:
    """Resolves a user by the rules of a task's `user`. Blocks: call `resolve` in an executor.

    A number with the number of a group needs no file.

    Args:
        user: name or number, with or without a group.
        container_id: the container, whose id is in the path of the process's cgroup.
        pid: the task's process.

    Raises:
        DriverError: code INVALID; the container has no such user.
    """
    numbers = user.replace(":", "", 1)
    plain = ":" in user and numbers.isascii() and numbers.isdecimal()
    accounts = _NONE if plain else _accounts(container_id, pid)
    try:
        return users.lookup(user, accounts)
    except DriverError as error:
        name = user.encode()[:_SHOWN].decode(errors="ignore")
        raise DriverError(
            f"user={name}: the container has no such user or group; UID:GID works",
            code=Code.INVALID,
        ) from error


def check_root(user: ResolvedUser, process: Document) -> None:
    """Refuses root, and root's group, for a command in a task that has neither.

    Args:
        user: the user of the command.
        process: the task's process in the OCI spec.

    Raises:
        DriverError: code DENIED; the command would have more rights than the task.
    """
    own: dict[str, Any] = process.get("user", {})
    if not own.get("uid", 0):
        return
    groups = {own.get("gid", 0), *own.get("additionalGids", ())}
    if not user.uid:
        raise DriverError(
            "user is root: the task is not, and the node's exec_options lack root", code=Code.DENIED
        )
    if 0 in {user.gid, *user.additional_gids} - groups:
        raise DriverError(
            f"user {user.uid} has group 0: write UID:GID, or the node's exec_options need root",
            code=Code.DENIED,
        )


def _accounts(container_id: str, pid: int) -> Accounts:
    """Reads passwd and group of a running container, without following a mount of the job."""
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # The kernel may have given the number to another process.
            if container_id not in Path(f"/proc/{pid}/cgroup").read_text():
                raise FileNotFoundError
            return users.read_both(root, syscalls.RESOLVE_NO_XDEV)
        finally:
            os.close(root)
    except OSError as error:
        raise DriverError(
            "user: cannot read the container's /etc/passwd and /etc/group; UID:GID works",
            code=Code.INVALID,
        ) from error
