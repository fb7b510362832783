"""Users and groups as an image may have them: looked up, or refused in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerd.rootfs_users import Accounts, ResolvedUser, lookup
from proto.errors import Code, DriverError

PASSWD = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000:Bob:/home/bob:/bin/sh\n"
GROUP = "root:x:0:\nadm:x:4:bob\nbob:x:1000:\n"
ACCOUNTS = Accounts(PASSWD, GROUP)
LARGEST = 2**32 - 2


def test_names_and_numbers_are_found() -> None:
    bob = ResolvedUser(uid=1000, gid=1000, additional_gids=(4,), home="/home/bob")
    assert lookup("bob", ACCOUNTS) == lookup("1000", ACCOUNTS) == bob
    assert lookup("", ACCOUNTS).uid == 0
    assert lookup(f"{LARGEST}:adm", ACCOUNTS) == ResolvedUser(uid=LARGEST, gid=4)


@pytest.mark.parametrize(
    "user",
    [
        "4294967295",  # -1: "do not change", and with it whatever the runtime is
        "99999999999999999999",
        "9" * 5000,
        "-1",
        "٣",
        "0x0",
        " 0",
        "bob\n",
        "../root",
        "bob:" + "9" * 5000,
        "bob:-1",
        "bob:nogroup",
        "0:4294967295",
        "a" * 100_000,
    ],
)
def test_what_is_no_user_of_the_image_is_refused_in_words(user: str) -> None:
    with pytest.raises(DriverError, match="Error in creating container") as caught:
        lookup(user, ACCOUNTS)
    assert caught.value.code is Code.INVALID
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "4294967295", "٣", ""])
def test_an_entry_with_a_number_that_is_none_is_refused(number: str) -> None:
    accounts = Accounts(f"eve:x:{number}:0::/:\nmel:x:1:{number}::/:\n", f"g:x:{number}:bob\n")
    for user in ("eve", "mel", "0:g"):
        with pytest.raises(DriverError):
            lookup(user, accounts)


def test_a_group_whose_number_is_none_is_not_the_users() -> None:
    group = "a:x:99999999999:bob\nb:x:" + "9" * 5000 + ":bob\nc:x:-1:bob\nadm:x:4:bob\n"
    assert lookup("bob", Accounts(PASSWD, group)).additional_gids == (4,)


@given(st.text(), st.text(), st.text())
def test_no_file_and_no_user_do_more_than_be_refused(user: str, passwd: str, group: str) -> None:
    try:
        found = lookup(user, Accounts(passwd, group), (user,))
    except DriverError:
        return
    assert all(0 <= number <= LARGEST for number in (found.uid, found.gid, *found.additional_gids))
