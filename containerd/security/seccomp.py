"""Builds the seccomp filter of a task, OCI's `linux.seccomp`, from a profile with conditions.

A profile is valid for every machine: rules may depend on a capability, an architecture or a kernel
version. `build` keeps the rules whose conditions hold for a task. `build` needs the task's final
capabilities: otherwise a task with SYS_ADMIN could get a filter that refuses mount(2).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import field

from containerd.documents import Document
from proto.values import dataclass

Version = tuple[int, int]

ALLOW = "SCMP_ACT_ALLOW"
ERRNO = "SCMP_ACT_ERRNO"
_WITH_NUMBER = frozenset({ERRNO, "SCMP_ACT_TRACE"})
EPERM = 1
# uname's machine → the name in conditions, and the system call tables of the machine's programs.
_MACHINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "x86_64": ("amd64", ("X86_64", "X86", "X32")),
    "i386": ("x86", ("X86",)),
    "i686": ("x86", ("X86",)),
    "aarch64": ("arm64", ("AARCH64", "ARM")),
    "armv6l": ("arm", ("ARM",)),
    "armv7l": ("arm", ("ARM",)),
    "loongarch64": ("loong64", ("LOONGARCH64",)),
    "mips64": ("mips64", ("MIPS64", "MIPS", "MIPS64N32")),
    "ppc64le": ("ppc64le", ("PPC64LE",)),
    "riscv64": ("riscv64", ("RISCV64",)),
    "s390x": ("s390x", ("S390X", "S390")),
}
_ARCH_PREFIX = "SCMP_ARCH_"
_RELEASE = re.compile(r"(\d{1,6})\.(\d{1,6})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """A comparison of a call's argument; index is 0 to 5."""

    index: int
    value: int
    op: str
    value_two: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A condition of a rule; empty fields match every task.

    In `only_if` all capabilities are necessary; in `unless` any of the capabilities suffices.
    """

    capabilities: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    min_kernel: Version | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An action for calls by name; errno is ERRNO's error number, or TRACE's message."""

    names: tuple[str, ...]
    action: str = ALLOW
    errno: int | None = None
    arguments: tuple[Argument, ...] = ()
    only_if: Condition = field(default_factory=Condition)
    unless: Condition = field(default_factory=Condition)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Rules, and an action for all other calls.

    architectures lists call tables for every machine; arch_map lists call tables by the native
    table. With None for both, this module chooses. Names are as SCMP_ARCH_X86_64.
    """

    default_action: str
    default_errno: int | None = None
    rules: tuple[Rule, ...] = ()
    architectures: tuple[str, ...] | None = None
    arch_map: tuple[tuple[str, tuple[str, ...]], ...] | None = None
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""


def build(
    profile: Profile, capabilities: Collection[str], machine: str, kernel_release: str
) -> Document:
    """Builds the OCI document for a task.

    Args:
        profile: the rules.
        capabilities: the task's bounding set.
        machine: uname's machine.
        kernel_release: uname's release; an unknown form counts as new.
    """
    name, tables = _MACHINES.get(machine, (machine, ()))
    default = _number(profile.default_action, profile.default_errno)
    document: Document = {
        "defaultAction": profile.default_action,
        "architectures": _architectures(profile, tables),
        "syscalls": [
            _oci(rule)
            for rule in profile.rules
            if _holds(rule, capabilities, name, _version(kernel_release))
            # libseccomp refuses a rule with the default action.
            and (rule.action, _number(rule.action, rule.errno)) != (profile.default_action, default)
        ],
    }
    if profile.default_errno is not None and profile.default_action in _WITH_NUMBER:
        document["defaultErrnoRet"] = profile.default_errno
    if profile.flags:
        document["flags"] = list(profile.flags)
    if profile.listener_path:
        document["listenerPath"] = profile.listener_path
        document["listenerMetadata"] = profile.listener_metadata
    return document


def _number(action: str, errno: int | None) -> int | None:
    if action not in _WITH_NUMBER:
        return None
    return EPERM if errno is None else errno


def _architectures(profile: Profile, tables: tuple[str, ...]) -> list[str]:
    of_machine = [_ARCH_PREFIX + table for table in tables]
    if profile.architectures is not None:
        return list(profile.architectures)
    if profile.arch_map is not None:
        for native, more in profile.arch_map:
            if of_machine and native == of_machine[0]:
                return [native, *more]
        # The profile does not name this machine. An empty list means the native table only.
        return []
    return of_machine


def _holds(rule: Rule, capabilities: Collection[str], arch: str, kernel: Version | None) -> bool:
    need, bar = rule.only_if, rule.unless
    return not (
        (need.architectures and arch not in need.architectures)
        or any(name not in capabilities for name in need.capabilities)
        or (need.min_kernel and kernel and kernel < need.min_kernel)
        or arch in bar.architectures
        or any(name in capabilities for name in bar.capabilities)
        or (bar.min_kernel and (kernel is None or kernel >= bar.min_kernel))
    )


def _version(release: str) -> Version | None:
    match = _RELEASE.match(release)
    return (int(match[1]), int(match[2])) if match else None


def _oci(rule: Rule) -> Document:
    document: Document = {"names": list(rule.names), "action": rule.action}
    if rule.errno is not None and rule.action in _WITH_NUMBER:
        document["errnoRet"] = rule.errno
    if rule.arguments:
        document["args"] = [
            {"index": a.index, "value": a.value, "valueTwo": a.value_two, "op": a.op}
            for a in rule.arguments
        ]
    return document
