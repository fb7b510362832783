"""Users and groups of an image: resolved, or refused with a sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerd.spec import users
from containerd.spec.users import Accounts, ResolvedUser, lookup
from proto.errors import Code, DriverError

PASSWD = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000:Bob:/home/bob:/bin/sh\n"
GROUP = "root:x:0:\nadm:x:4:bob\nbob:x:1000:\n"
ACCOUNTS = Accounts(PASSWD, GROUP)
LARGEST = 2**32 - 2


def test_names_and_numbers_are_found() -> None:
    bob = ResolvedUser(uid=1000, gid=1000, additional_gids=(1000, 4), home="/home/bob")
    assert lookup("bob", ACCOUNTS) == lookup("1000", ACCOUNTS) == bob
    assert lookup("", ACCOUNTS).uid == 0
    assert lookup(f"{LARGEST}:adm", ACCOUNTS) == ResolvedUser(
        uid=LARGEST, gid=4, additional_gids=(4,)
    )


@pytest.mark.parametrize("user", ["", "0", "bob", "1000", "bob:adm", "7", "7:8", "0:0", ":adm"])
@pytest.mark.parametrize("more", [(), ("adm",), ("0", "adm", "5", "5")])
def test_the_primary_group_is_the_first_of_all_groups_and_none_is_there_twice(
    user: str, more: tuple[str, ...]
) -> None:
    found = lookup(user, ACCOUNTS, more)
    assert found.additional_gids[0] == found.gid
    assert len(set(found.additional_gids)) == len(found.additional_gids)


def test_numbers_are_compared_as_numbers_and_the_first_line_counts() -> None:
    passwd = "\u2028#:x\nnine:x:009:7::/home/nine:/bin/sh\n9:x:1:1::/:\n"
    group = "a:x:0010:nine\n10:x:11:\n\x0bb:x:12:\n"
    accounts = Accounts(passwd, group)
    found = lookup("0009", accounts, ("10", "00011", "b"))
    assert found == ResolvedUser(uid=9, gid=7, additional_gids=(7, 10, 11, 12), home="/home/nine")


@pytest.mark.timeout(20)
def test_a_thousand_groups_are_looked_up_in_one_pass_over_the_file() -> None:
    """Bounds the time: a pass for each group took 88 s."""
    lines = [f"g{number}:x:{number}:bob\n" for number in range(50_000)]
    more = tuple(f"g{number}" for number in range(49_000, 50_000))
    found = lookup("bob", Accounts(PASSWD, "".join(lines)), more)
    assert set(found.additional_gids) == {*range(50_000)}


def test_more_groups_than_the_kernel_takes_are_refused() -> None:
    lines = [f"g{number}:x:{number}:bob\n" for number in range(65_537)]
    with pytest.raises(DriverError, match="more than 65536 groups"):
        lookup("bob", Accounts(PASSWD, "".join(lines)))


def test_what_is_remembered_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds the memory: without a limit 526 MB of texts stayed."""
    cache = users._Cache()
    monkeypatch.setattr(users, "_cache", cache)
    huge = ResolvedUser(uid=1, gid=1, additional_gids=tuple(range(20_000)), home="\U0001f600" * 99)
    small = ResolvedUser(uid=1, gid=1)
    for number in range(100):
        cache.keep((f"sha256:{number}", "bob", ("x" * 1000,) * 10), huge)
        cache.keep((f"sha256:{number}", "", ()), small)
    assert 1 < len(cache._users) < 10
    assert cache.get(("sha256:99", "", ())) is small
    assert cache._bytes == sum(users._size(*entry) for entry in cache._users.items())


@pytest.mark.parametrize(
    "user",
    [
        "4294967295",  # -1 for setuid: "do not change"; the task would have the runtime's user
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
    assert lookup("bob", Accounts(PASSWD, group)).additional_gids == (1000, 4)


@given(st.text(), st.text(), st.text())
def test_no_file_and_no_user_do_more_than_be_refused(user: str, passwd: str, group: str) -> None:
    try:
        found = lookup(user, Accounts(passwd, group), (user,))
    except DriverError:
        return
    assert all(0 <= number <= LARGEST for number in (found.uid, found.gid, *found.additional_gids))
