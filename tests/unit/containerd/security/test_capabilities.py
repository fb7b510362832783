"""Capabilities: numbers, spellings, and the result of adds and drops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerd.security import capabilities
from containerd.security.capabilities import DEFAULT, NAMES
from proto.errors import Code, DriverError
from tests.support.kernel.seccomp import mask_of

KERNEL = capabilities.of_kernel(40)


def granted(add: list[str], drop: list[str], last: int = 40) -> set[str]:
    known = capabilities.of_kernel(last)
    return set(capabilities.granted(add, drop, kernel=known, everything=known))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("CAP_CHOWN", 0),
        ("CAP_SETPCAP", 8),
        ("CAP_NET_RAW", 13),
        ("CAP_SYS_ADMIN", 21),
        ("CAP_MKNOD", 27),
        ("CAP_AUDIT_READ", 37),
        ("CAP_CHECKPOINT_RESTORE", 40),
    ],
)
def test_a_name_stands_at_its_kernel_number(name: str, number: int) -> None:
    assert NAMES.index(name) == number
    assert mask_of([name]) == 1 << number


def test_the_default_set_is_dockers_in_a_status_file() -> None:
    assert f"{mask_of(DEFAULT):016x}" == "00000000a80425fb"


def test_an_older_kernel_has_fewer() -> None:
    assert capabilities.of_kernel(37)[-1] == "CAP_AUDIT_READ"
    assert len(capabilities.of_kernel(63)) == len(NAMES)


@pytest.mark.parametrize("written", ["CAP_SYS_ADMIN", "SYS_ADMIN", "sys_admin", "cap_Sys_Admin"])
def test_prefix_and_capitals_are_optional(written: str) -> None:
    assert granted([written], []) == {*DEFAULT, "CAP_SYS_ADMIN"}
    assert granted(["all"], [written]) == set(NAMES) - {"CAP_SYS_ADMIN"}


def test_what_is_added_and_dropped_by_name_is_dropped() -> None:
    assert granted(["SYS_TIME", "BPF"], ["SYS_TIME", "CHOWN"]) == {
        *DEFAULT,
        "CAP_BPF",
    } - {"CAP_CHOWN"}


def test_dropping_all_leaves_only_what_is_added_by_name() -> None:
    assert granted([], ["ALL"]) == set()
    assert granted(["net_bind_service"], ["CAP_ALL"]) == {"CAP_NET_BIND_SERVICE"}
    assert granted(["all"], ["all"]) == set()
    assert granted(["all", "KILL"], ["all"]) == {"CAP_KILL"}
    assert granted(["KILL"], ["all", "KILL"]) == set()


def test_adding_all_brings_no_more_than_there_is() -> None:
    assert granted(["all"], [], last=37) == set(capabilities.of_kernel(37))
    has = capabilities.granted(["all"], [], kernel=KERNEL, everything=["CAP_BPF"])
    assert set(has) == {*DEFAULT, "CAP_BPF"}


def test_drops_take_from_any_base() -> None:
    has = capabilities.granted([], ["BPF"], kernel=KERNEL, everything=KERNEL, base=KERNEL)
    assert has == tuple(name for name in KERNEL if name != "CAP_BPF")


@pytest.mark.parametrize(
    ("option", "written", "words"),
    [
        ("cap_add", "SYS_ADMN", "did you mean SYS_ADMIN?"),
        ("cap_drop", "CAP_CHWON", "did you mean CHOWN?"),
        ("cap_add", "", "capabilities(7)"),
        ("cap_add", "a" * 500, "capabilities(7)"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(
    option: str, written: str, words: str
) -> None:
    lists: dict[str, list[str]] = {"cap_add": [], "cap_drop": [], option: [written]}
    with pytest.raises(DriverError) as caught:
        granted(lists["cap_add"], lists["cap_drop"])
    assert caught.value.code is Code.INVALID
    assert f"Error in creating container: {option}: {written[:64]!r} is no" in str(caught.value)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_name_that_this_kernel_lacks_says_so() -> None:
    with pytest.raises(DriverError, match="kernel of this node does not have CAP_BPF"):
        granted(["bpf"], [], last=37)


@given(st.integers(0, 2 ** len(NAMES) - 1))
def test_masks_and_names_are_each_others_reverse(mask: int) -> None:
    assert mask_of(capabilities.of_mask(mask)) == mask


@given(st.lists(st.sampled_from(NAMES)), st.lists(st.sampled_from(NAMES)))
def test_names_give_the_defaults_and_adds_without_drops(add: list[str], drop: list[str]) -> None:
    assert granted(add, drop) == (set(DEFAULT) | set(add)) - set(drop)
