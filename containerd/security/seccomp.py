"""The seccomp filter of a task: a profile with conditions in, OCI's `linux.seccomp` out.

A profile says what holds for every machine: which rules need a capability, an architecture or a
kernel. `build` keeps those that hold for one task. It takes the capabilities that the task will
have: worked out any earlier, SYS_ADMIN would be granted and mount(2) still refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from containerd.documents import Document

Version = tuple[int, int]

ALLOW = "SCMP_ACT_ALLOW"
ERRNO = "SCMP_ACT_ERRNO"
_WITH_NUMBER = frozenset({ERRNO, "SCMP_ACT_TRACE"})
EPERM = 1
# uname's machine → the name in conditions, and the system call tables that programs there use.
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
    """A comparison of one of the call's six arguments."""

    index: int
    value: int
    op: str
    value_two: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Empty parts say nothing. As `only_if` all capabilities count, as `unless` any of them."""

    capabilities: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    min_kernel: Version | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What happens to calls of these names. errno is for ERRNO, and the message of TRACE."""

    names: tuple[str, ...]
    action: str = ALLOW
    errno: int | None = None
    arguments: tuple[Argument, ...] = ()
    only_if: Condition = field(default_factory=Condition)
    unless: Condition = field(default_factory=Condition)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Rules, and what happens to all other calls.

    architectures are the call tables for any machine, arch_map those by the machine's native one;
    None for both leaves the choice to this module. All are names such as SCMP_ARCH_X86_64.
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
    """The document for one task.

    Args:
        profile: the rules.
        capabilities: of the task's bounding set.
        machine: as uname names it.
        kernel_release: as uname names it; unreadable counts as new.
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
            # libseccomp refuses a rule that does what happens anyway.
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
    own = [_ARCH_PREFIX + table for table in tables]
    if profile.architectures is not None:
        return list(profile.architectures)
    if profile.arch_map is not None:
        for native, more in profile.arch_map:
            if own and native == own[0]:
                return [native, *more]
        # Nothing said about this machine: its native table only, which is what empty means.
        return []
    return own


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
    found = _RELEASE.match(release)
    return (int(found[1]), int(found[2])) if found else None


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
