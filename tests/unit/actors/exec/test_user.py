"""The user of a command, and the gate for root."""

from __future__ import annotations

import os
from typing import Any

import pytest

from actors.exec import user
from containerd.spec.users import ResolvedUser
from proto.errors import Code, DriverError

TASK = {"user": {"uid": 1000, "gid": 1000, "additionalGids": [1000, 27]}}


def resolved(uid: int, gid: int, *more: int) -> ResolvedUser:
    return ResolvedUser(uid=uid, gid=gid, additional_gids=(gid, *more))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (resolved(0, 0), "user is root"),
        (resolved(0, 1000), "user is root"),
        (resolved(7, 0), "user 7 has group 0: write UID:GID"),
        (resolved(7, 7, 0), "user 7 has group 0"),
    ],
)
def test_root_and_its_group_need_a_task_of_root(wanted: ResolvedUser, words: str) -> None:
    with pytest.raises(DriverError, match=words) as caught:
        user.check_root(wanted, TASK)
    assert caught.value.code is Code.DENIED
    user.check_root(wanted, {"user": {"uid": 0, "gid": 0}})
    user.check_root(wanted, {})


def test_other_users_and_own_groups_need_no_root() -> None:
    user.check_root(resolved(7, 7, 27), TASK)
    own: dict[str, Any] = {"user": {"uid": 1000, "gid": 0}}
    user.check_root(resolved(7, 0), own)


def test_numbers_need_no_file_and_names_need_the_container() -> None:
    assert user.resolve("7:8", "t", pid=0) == resolved(7, 8)
    with pytest.raises(DriverError, match="cannot read the container's /etc/passwd"):
        user.resolve("app", "t", pid=0)
    with pytest.raises(DriverError, match="cannot read the container's /etc/passwd"):
        # The process exists, but is another container's.
        user.resolve("app", "no-such-container", os.getpid())
    with pytest.raises(DriverError, match="no such user or group; UID:GID works"):
        user.resolve("99999999999:1", "t", pid=0)
