"""Texts of seccomp profiles: both forms are read, and errors name the place of a mistake."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerd.security import seccomp, seccomp_files, seccomp_json
from containerd.security.seccomp import Argument, Condition, Rule
from proto.errors import Code, DriverError
from tests.support.kernel.seccomp import docker_profile

SECRET = "s3cr3t-Hash"


def parse(**fields: Any) -> seccomp.Profile:
    document = {"defaultAction": "SCMP_ACT_ALLOW", **fields}
    return seccomp_json.parse(json.dumps(document).encode())


def rule(**fields: Any) -> Rule:
    return parse(syscalls=[{"names": ["read"], "action": "SCMP_ACT_LOG", **fields}]).rules[0]


def test_ocis_form_is_read_whole() -> None:
    profile = parse(
        defaultErrnoRet=38,
        architectures=["SCMP_ARCH_X86_64"],
        flags=["SECCOMP_FILTER_FLAG_LOG"],
        listenerPath="/run/seccomp.sock",
        listenerMetadata="tasks",
        syscalls=[
            {
                "names": ["clone"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 1,
                "args": [
                    {"index": 5, "value": 2**64 - 1, "valueTwo": 7, "op": "SCMP_CMP_MASKED_EQ"}
                ],
            }
        ],
    )
    assert profile == seccomp.Profile(
        default_action="SCMP_ACT_ALLOW",
        default_errno=38,
        architectures=("SCMP_ARCH_X86_64",),
        flags=("SECCOMP_FILTER_FLAG_LOG",),
        listener_path="/run/seccomp.sock",
        listener_metadata="tasks",
        rules=(
            Rule(
                names=("clone",),
                action="SCMP_ACT_ERRNO",
                errno=1,
                arguments=(
                    Argument(index=5, value=2**64 - 1, value_two=7, op="SCMP_CMP_MASKED_EQ"),
                ),
            ),
        ),
    )
    document = seccomp.build(profile, (), "aarch64", "6.1")
    assert document["flags"] == ["SECCOMP_FILTER_FLAG_LOG"]
    assert document["listenerPath"] == "/run/seccomp.sock"
    assert document["architectures"] == ["SCMP_ARCH_X86_64"]


def test_a_profile_that_names_no_architecture_is_for_the_native_one() -> None:
    assert seccomp.build(parse(), (), "x86_64", "6.1")["architectures"] == []


def test_nulls_are_what_go_writes_for_nothing() -> None:
    nothing = dict.fromkeys(("args", "includes", "excludes", "errnoRet"))
    assert rule(**nothing) == Rule(names=("read",), action="SCMP_ACT_LOG")
    assert parse(architectures=None, archMap=None, syscalls=None, flags=None).rules == ()


def test_one_name_and_comments_are_read_as_docker_reads_them() -> None:
    found = parse(
        comment="x", syscalls=[{"name": "read", "action": "SCMP_ACT_LOG", "comment": "y"}]
    )
    assert found.rules == (Rule(names=("read",), action="SCMP_ACT_LOG"),)


def test_podmans_names_of_errors_win_over_its_numbers() -> None:
    profile = parse(
        defaultErrno="ENOSYS",
        defaultErrnoRet=1,
        syscalls=[{"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errno": "EPERM", "errnoRet": 38}],
    )
    assert (profile.default_errno, profile.rules[0].errno) == (errno.ENOSYS, errno.EPERM)


def test_conditions_are_read() -> None:
    found = rule(
        includes={"caps": ["CAP_BPF"], "arches": ["amd64"], "minKernel": "5.11"},
        excludes={"caps": ["CAP_SYS_ADMIN"]},
    )
    assert found.only_if == Condition(
        capabilities=("CAP_BPF",), architectures=("amd64",), min_kernel=(5, 11)
    )
    assert found.unless == Condition(capabilities=("CAP_SYS_ADMIN",))


def refused(text: bytes) -> str:
    with pytest.raises(DriverError) as caught:
        seccomp_files.decode("web.json", text)
    assert caught.value.code is Code.INVALID
    sentence = caught.value.brief
    start = 'Error in creating container: decoding seccomp profile failed "web.json": '
    assert sentence.startswith(start)
    return sentence.removeprefix(start)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "the file is not JSON: line 1, column 1"),
        (f"root:{SECRET}:0:0::".encode(), "the file is not JSON"),
        (b"\xff\xfe\xfd", "the file is not JSON"),
        (b"[" * 100_000, "the file is not JSON"),
        (b"9" * 5000, "the file is not JSON"),
        (b"[]", "the file is not an object"),
        (b"null", "the file is not an object"),
        (b"{}", "defaultAction is not one of SCMP_ACT_ALLOW"),
    ],
)
def test_what_is_no_profile_is_refused(text: bytes, words: str) -> None:
    assert words in refused(text)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"defaultAction": SECRET}, "defaultAction is not one of"),
        ({"defaultErrnoRet": -1}, "defaultErrnoRet is not a whole number from 0 to 4095"),
        ({"defaultErrnoRet": True}, "defaultErrnoRet is not a whole number"),
        ({"defaultErrno": SECRET}, "defaultErrno is not the name of an error number"),
        ({"architectures": ["amd64"]}, "architectures[0] is not one of SCMP_ARCH_"),
        ({"architectures": "SCMP_ARCH_X86"}, "architectures is not a list"),
        ({"archMap": [{}]}, "archMap[0].architecture is not one of"),
        ({"archMap": [{"architecture": "SCMP_ARCH_X86", "sub": []}]}, "archMap[0] has a key"),
        (
            {
                "architectures": ["SCMP_ARCH_X86"],
                "archMap": [{"architecture": "SCMP_ARCH_X86_64"}],
            },
            "both architectures and archMap",
        ),
        ({"flags": [SECRET]}, "flags[0] is not one of SECCOMP_FILTER_FLAG_"),
        ({"listenerPath": 1}, "listenerPath is not a text"),
        ({"listenerPath": "/a\nb"}, "listenerPath is not a text"),
        ({"syscalls": {}}, "syscalls is not a list"),
        ({"syscalls": [SECRET]}, "syscalls[0] is not an object"),
        ({"sysCalls": []}, "the file has a key that is not one of archMap"),
    ],
)
def test_a_wrong_field_is_named_and_its_value_is_not(fields: dict[str, Any], words: str) -> None:
    sentence = refused(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", **fields}).encode())
    assert words in sentence
    assert SECRET not in sentence


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"names": []}, "syscalls[1] names no system call"),
        ({"names": [SECRET, 1]}, "syscalls[1].names[0] is not a name"),
        ({"name": "write"}, "syscalls[1] has both name and names"),
        ({"action": "ALLOW"}, "syscalls[1].action is not one of"),
        ({"errnoRet": 4096}, "syscalls[1].errnoRet is not a whole number"),
        ({"args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}, "syscalls[1].args[0].index"),
        ({"args": [{"value": 2**64, "op": "SCMP_CMP_EQ"}]}, "syscalls[1].args[0].value"),
        ({"args": [{"value": 1.5, "op": "SCMP_CMP_EQ"}]}, "syscalls[1].args[0].value"),
        ({"args": [{"value": 1}]}, "syscalls[1].args[0].op is not one of SCMP_CMP_EQ"),
        ({"include": {"caps": ["CAP_BPF"]}}, "syscalls[1] has a key"),
        ({"includes": {"cap": ["CAP_BPF"]}}, "syscalls[1].includes has a key"),
        ({"includes": []}, "syscalls[1].includes is not an object"),
        ({"excludes": {"caps": ["SYS_ADMIN"]}}, "syscalls[1].excludes.caps[0] is not a capability"),
        ({"excludes": {"minKernel": "4"}}, "syscalls[1].excludes.minKernel is not a kernel"),
    ],
)
def test_a_wrong_rule_is_named_by_its_place(fields: dict[str, Any], words: str) -> None:
    good = {"names": ["read"], "action": "SCMP_ACT_LOG"}
    document = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [good, {**good, **fields}]}
    sentence = refused(json.dumps(document).encode())
    assert words in sentence
    assert SECRET not in sentence


def decodes_or_refuses(text: bytes) -> None:
    try:
        profile = seccomp_files.decode("x.json", text)
    except DriverError:
        return
    json.dumps(seccomp.build(profile, {"CAP_BPF"}, "x86_64", "6.1")).encode()


@given(st.binary(max_size=200))
def test_no_bytes_make_anything_but_a_profile_or_a_sentence(text: bytes) -> None:
    decodes_or_refuses(text)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["SCMP_ACT_ERRNO", "SCMP_CMP_EQ", "SCMP_ARCH_X86_64", "CAP_BPF", "4.8"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Lists every path in a document."""
    found = [path]
    children: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        found += places(child, (*path, key))
    return found


@given(st.data(), ANYTHING)
def test_anything_at_any_place_makes_a_profile_or_a_sentence(
    data: st.DataObject, anything: Any
) -> None:
    document: Any = docker_profile()
    document["syscalls"][0]["args"] = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]
    path = data.draw(st.sampled_from(places(document)))
    if path:
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = anything
    else:
        document = anything
    decodes_or_refuses(json.dumps(document).encode())
