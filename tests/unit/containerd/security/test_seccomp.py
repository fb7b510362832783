"""The filter of a task from a seccomp profile, and the calls of the default profile."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerd.security import capabilities, seccomp, seccomp_json
from containerd.security.seccomp import Condition, Profile, Rule
from containerd.security.seccomp_default import DEFAULT_PROFILE
from tests.support.kernel.seccomp import docker_profile, outcome

ALLOWED = ("SCMP_ACT_ALLOW", None)
REFUSED = ("SCMP_ACT_ERRNO", errno.EPERM)
RELEASE = "6.1.0-18-amd64"
CLONE_THREAD, CLONE_NEWUSER, CLONE_NEWTIME = 0x10000, 0x10000000, 0x80
AF_INET, AF_ALG, AF_NFC, AF_VSOCK, AF_XDP = 2, 38, 39, 40, 44


def default(*more: str, machine: str = "x86_64", release: str = RELEASE) -> dict[str, Any]:
    return seccomp.build(DEFAULT_PROFILE, (*capabilities.DEFAULT, *more), machine, release)


@pytest.mark.parametrize(
    "call", ["read", "openat2", "execve", "clock_gettime", "futex", "mmap", "chroot", "ptrace"]
)
def test_the_default_profile_lets_through_what_programs_live_on(call: str) -> None:
    assert outcome(default(), call) == ALLOWED


@pytest.mark.parametrize(
    ("call", "capability"),
    [
        ("mount", "CAP_SYS_ADMIN"),
        ("unshare", "CAP_SYS_ADMIN"),
        ("setns", "CAP_SYS_ADMIN"),
        ("bpf", "CAP_BPF"),
        ("bpf", "CAP_SYS_ADMIN"),
        ("perf_event_open", "CAP_PERFMON"),
        ("reboot", "CAP_SYS_BOOT"),
        ("finit_module", "CAP_SYS_MODULE"),
        ("kcmp", "CAP_SYS_PTRACE"),
        ("open_by_handle_at", "CAP_DAC_READ_SEARCH"),
        ("clock_settime", "CAP_SYS_TIME"),
        ("mbind", "CAP_SYS_NICE"),
        ("syslog", "CAP_SYSLOG"),
    ],
)
def test_the_default_profile_follows_the_capabilities(call: str, capability: str) -> None:
    assert outcome(default(), call) == REFUSED
    assert outcome(default(capability), call) == ALLOWED


@pytest.mark.parametrize("call", ["keyctl", "add_key", "kexec_load", "swapon", "io_uring_setup"])
def test_some_calls_are_refused_even_to_an_administrator(call: str) -> None:
    assert outcome(default("CAP_SYS_ADMIN"), call) == REFUSED


def test_chroot_goes_with_its_capability() -> None:
    assert outcome(seccomp.build(DEFAULT_PROFILE, (), "x86_64", RELEASE), "chroot") == REFUSED


def test_threads_are_made_and_namespaces_are_not() -> None:
    document = default()
    assert outcome(document, "clone", CLONE_THREAD) == ALLOWED
    assert outcome(document, "clone", CLONE_NEWUSER | CLONE_THREAD) == REFUSED
    assert outcome(document, "clone3") == ("SCMP_ACT_ERRNO", errno.ENOSYS)


def test_an_administrator_makes_namespaces() -> None:
    document = default("CAP_SYS_ADMIN")
    assert outcome(document, "clone", CLONE_NEWUSER) == ALLOWED
    assert outcome(document, "clone3") == ALLOWED


def test_the_flags_of_clone_are_its_second_argument_on_s390x() -> None:
    document = default(machine="s390x")
    assert outcome(document, "clone", CLONE_NEWUSER, CLONE_THREAD) == ALLOWED
    assert outcome(document, "clone", 0, CLONE_NEWUSER) == REFUSED


@pytest.mark.parametrize("family", [0, AF_INET, AF_ALG - 1, AF_NFC, AF_VSOCK + 1, AF_XDP])
def test_sockets_of_all_families_but_two_are_made(family: int) -> None:
    assert outcome(default(), "socket", family) == ALLOWED


@pytest.mark.parametrize("family", [AF_ALG, AF_VSOCK])
def test_sockets_of_the_kernels_crypto_and_of_virtual_machines_are_not(family: int) -> None:
    assert outcome(default("CAP_SYS_ADMIN"), "socket", family) == REFUSED


def test_only_harmless_personalities_are_taken() -> None:
    assert outcome(default(), "personality", 0x20008) == ALLOWED
    assert outcome(default(), "personality", 0x0040000) == REFUSED  # ADDR_NO_RANDOMIZE


def test_ptrace_waits_for_the_kernel_that_filters_tracers_too() -> None:
    assert outcome(default(release="4.4.0"), "ptrace") == REFUSED
    assert outcome(default(release="4.10.1"), "ptrace") == ALLOWED
    assert outcome(default("CAP_SYS_PTRACE", release="4.4.0"), "ptrace") == ALLOWED
    assert outcome(default(release="custom"), "ptrace") == ALLOWED


@pytest.mark.parametrize(
    ("machine", "tables", "own_call"),
    [
        ("x86_64", ["X86_64", "X86", "X32"], "arch_prctl"),
        ("aarch64", ["AARCH64", "ARM"], "set_tls"),
        ("riscv64", ["RISCV64"], "riscv_flush_icache"),
        ("s390x", ["S390X", "S390"], "s390_runtime_instr"),
        ("ppc64le", ["PPC64LE"], "swapcontext"),
        ("vax", [], ""),
    ],
)
def test_a_machine_has_its_own_tables_and_calls(
    machine: str, tables: list[str], own_call: str
) -> None:
    document = default(machine=machine)
    assert document["architectures"] == [f"SCMP_ARCH_{table}" for table in tables]
    for call in ("arch_prctl", "set_tls", "riscv_flush_icache", "swapcontext"):
        assert (outcome(document, call) == ALLOWED) == (call == own_call)


def names_of(profile: dict[str, Any], *caps: str, machine: str, release: str) -> set[str]:
    parsed = seccomp_json.parse(json.dumps(profile).encode())
    document = seccomp.build(parsed, caps, machine, release)
    return {name for rule in document["syscalls"] for name in rule["names"]}


@pytest.mark.parametrize(
    ("caps", "machine", "release", "names"),
    [
        ((), "x86_64", "6.1", {"mkdir", "mkdirat", "mount", "sethostname"}),
        (("CAP_SYS_ADMIN",), "x86_64", "6.1", {"mkdir", "mkdirat", "sethostname"}),
        (("CAP_SYS_TIME",), "riscv64", "6.1", {"mkdir", "mkdirat", "mount", "chroot"}),
        ((), "aarch64", "4.7.9", {"mkdir", "mkdirat", "mount", "ptrace"}),
        ((), "ppc64le", "4.8.0", {"mkdir", "mkdirat", "mount", "swapcontext"}),
    ],
)
def test_rules_of_dockers_form_hold_under_their_conditions(
    caps: tuple[str, ...], machine: str, release: str, names: set[str]
) -> None:
    assert names_of(docker_profile(), *caps, machine=machine, release=release) == names


@pytest.mark.parametrize(
    ("machine", "tables"),
    [
        ("x86_64", ["X86_64", "X86", "X32"]),
        ("aarch64", ["AARCH64", "ARM"]),
        ("riscv64", ["RISCV64"]),
        ("s390x", []),
        ("vax", []),
    ],
)
def test_an_arch_map_is_read_for_the_machine(machine: str, tables: list[str]) -> None:
    parsed = seccomp_json.parse(json.dumps(docker_profile()).encode())
    document = seccomp.build(parsed, (), machine, RELEASE)
    assert document["architectures"] == [f"SCMP_ARCH_{table}" for table in tables]


def test_all_capabilities_of_a_condition_must_be_there_and_any_excludes() -> None:
    both = Condition(capabilities=("CAP_BPF", "CAP_PERFMON"))
    profile = Profile(
        default_action="SCMP_ACT_ERRNO",
        rules=(Rule(names=("needs",), only_if=both), Rule(names=("bars",), unless=both)),
    )

    def left(*caps: str) -> set[str]:
        document = seccomp.build(profile, caps, "x86_64", RELEASE)
        return {name for rule in document["syscalls"] for name in rule["names"]}

    assert left("CAP_BPF") == set()
    assert left("CAP_BPF", "CAP_PERFMON") == {"needs"}
    assert left("CAP_KILL") == {"bars"}


def test_rules_that_say_what_happens_anyway_are_left_out() -> None:
    profile = Profile(
        default_action="SCMP_ACT_ERRNO",
        rules=(
            Rule(names=("same",), action="SCMP_ACT_ERRNO", errno=errno.EPERM),
            Rule(names=("other",), action="SCMP_ACT_ERRNO", errno=errno.ENOSYS),
        ),
    )
    document = seccomp.build(profile, (), "x86_64", RELEASE)
    assert document["syscalls"] == [
        {"names": ["other"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}
    ]


def test_an_error_number_stays_only_where_it_means_something() -> None:
    profile = Profile(
        default_action="SCMP_ACT_KILL",
        default_errno=1,
        rules=(Rule(names=("read",), action="SCMP_ACT_ALLOW", errno=1),),
    )
    assert seccomp.build(profile, (), "x86_64", RELEASE) == {
        "defaultAction": "SCMP_ACT_KILL",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}],
    }


@given(
    st.sets(st.sampled_from(capabilities.NAMES)),
    st.sampled_from(["x86_64", "aarch64", "s390x", "riscv64", "ppc64le", "armv7l", "vax"]),
    st.sampled_from(["4.4", "4.8.1", "6.1.0-18-amd64", "next"]),
)
def test_the_default_profile_is_read_back_from_its_own_document(
    caps: set[str], machine: str, release: str
) -> None:
    document = seccomp.build(DEFAULT_PROFILE, caps, machine, release)
    again = seccomp_json.parse(json.dumps(document).encode())
    assert seccomp.build(again, (), machine, release) == document


@given(st.sets(st.sampled_from(capabilities.NAMES)), st.sampled_from(capabilities.NAMES))
def test_one_capability_more_never_takes_an_allowed_call_away(caps: set[str], more: str) -> None:
    def allowed(having: set[str]) -> set[str]:
        document = seccomp.build(DEFAULT_PROFILE, having, "x86_64", RELEASE)
        return {
            name
            for rule in document["syscalls"]
            for name in rule["names"]
            if rule["action"] == "SCMP_ACT_ALLOW"
        }

    assert allowed(caps) <= allowed(caps | {more})
