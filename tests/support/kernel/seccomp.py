"""A profile in Docker's form, and an evaluator of OCI documents that follows the kernel's rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from containerd.security.capabilities import NAMES

_COMPARE: dict[str, Callable[[int, int, int], bool]] = {
    "SCMP_CMP_NE": lambda given, value, _: given != value,
    "SCMP_CMP_LT": lambda given, value, _: given < value,
    "SCMP_CMP_LE": lambda given, value, _: given <= value,
    "SCMP_CMP_EQ": lambda given, value, _: given == value,
    "SCMP_CMP_GE": lambda given, value, _: given >= value,
    "SCMP_CMP_GT": lambda given, value, _: given > value,
    "SCMP_CMP_MASKED_EQ": lambda given, mask, value: given & mask == value,
}


def docker_profile() -> dict[str, Any]:
    """Returns a profile that allows all calls but a few; each kind of condition occurs once."""
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "comment": "a profile of the tests",
        "archMap": [
            {
                "architecture": "SCMP_ARCH_X86_64",
                "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            },
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": None},
        ],
        "syscalls": [
            {
                "names": ["mkdir", "mkdirat"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 38,
                "args": [],
                "comment": "for everybody",
                "includes": {},
                "excludes": {},
            },
            {
                "names": ["mount"],
                "action": "SCMP_ACT_ERRNO",
                "excludes": {"caps": ["CAP_SYS_ADMIN"]},
            },
            {
                "names": ["chroot"],
                "action": "SCMP_ACT_ERRNO",
                "includes": {"caps": ["CAP_SYS_TIME"]},
            },
            {
                "name": "sethostname",
                "action": "SCMP_ACT_ERRNO",
                "includes": {"arches": ["amd64", "arm64"], "minKernel": "4.8"},
            },
            {
                "names": ["swapcontext"],
                "action": "SCMP_ACT_ERRNO",
                "includes": {"arches": ["ppc64le"]},
            },
            {
                "names": ["ptrace"],
                "action": "SCMP_ACT_ERRNO",
                "excludes": {"minKernel": "4.8"},
            },
        ],
    }


def outcome(document: dict[str, Any], call: str, *arguments: int) -> tuple[str, int | None]:
    """Returns the filter's answer to a call: the action and the error number.

    Of several rules with one action any may match; rules with different actions must not meet.
    """
    given = (*arguments, 0, 0, 0, 0, 0, 0)
    found = {
        (rule["action"], rule.get("errnoRet"))
        for rule in document["syscalls"]
        if call in rule["names"]
        and all(
            _COMPARE[a["op"]](given[a["index"]], a["value"], a["valueTwo"])
            for a in rule.get("args", [])
        )
    }
    assert len(found) <= 1, (call, found)
    return found.pop() if found else (document["defaultAction"], document.get("defaultErrnoRet"))


def mask_of(names: Iterable[str]) -> int:
    """Returns capabilities as the kernel's bit mask."""
    return sum(1 << NAMES.index(name) for name in set(names))
