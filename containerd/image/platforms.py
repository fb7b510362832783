"""Platforms of images: which ones this machine runs, and which of them is the best.

The rules are those of containerd's own package `platforms`: names are normalised, 32-bit programs
are the last resort, and an OS version or OS features say nothing on Linux. Beyond it, a variant of
amd64 or arm64 is matched by what the CPU has.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_LINUX = "linux"
# Other names of an architecture, uname's among them, and the variant that the name stands for.
_ALIASES: dict[str, tuple[str, str]] = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "armv5tejl": ("arm", "v5"),
    "loongarch64": ("loong64", ""),
}
# uname has one name for both orders of bytes, images have two.
_LITTLE = {"mips": "mipsle", "mips64": "mips64le"}
_SYSTEMS = {"": _LINUX, "macos": "darwin"}
# What an architecture without a variant means; these variants are not written.
_BASE = {"amd64": "v1", "arm64": "v8"}

# The psABI's levels: each has what the one before it has, and these flags of /proc/cpuinfo.
_AMD64_LEVELS: tuple[tuple[str, str], ...] = (
    ("v2", "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"),
    ("v3", "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"),
    ("v4", "avx512bw avx512cd avx512dq avx512f avx512vl"),
)
# Arm's, by what each makes mandatory and the kernel shows.
_ARM64_LEVELS: tuple[tuple[str, str], ...] = (
    ("v8.1", "atomics asimdrdm crc32"),
    ("v8.2", "dcpop"),
    ("v8.3", "fcma jscvt lrcpc"),
    ("v8.4", "asimddp dit flagm ilrcpc uscat"),
    ("v8.5", "flagm2 frint sb"),
    ("v8.6", "bf16 i8mm"),
    ("v8.7", "wfxt"),
)
# An Armv9 CPU has what the Armv8 of the same row has, and SVE2.
_ARM64_NINTH = {"v8.5": "v9", "v8.6": "v9.1", "v8.7": "v9.2"}
_SVE2 = "sve2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Normalised; architecture is empty where an image does not tell it."""

    os: str = _LINUX
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What one machine runs, best first."""

    runs: tuple[Platform, ...]

    @property
    def name(self) -> str:
        """Returns the platform in the words of errors: without the CPU's level."""
        own = self.runs[0]
        return f"{own.os}/{own.architecture}" if own.architecture in _BASE else str(own)

    def rank(self, platform: Platform) -> int | None:
        """Returns how good a platform is here, 0 the best; None where it does not run.

        A platform without an architecture may run, and ranks behind all that are known to.
        """
        if platform.os == _LINUX and not platform.architecture:
            return len(self.runs)
        return self.runs.index(platform) if platform in self.runs else None

    def is_native(self, rank: int) -> bool:
        """Returns True where this rank is neither a last resort nor a guess."""
        own = self.runs[0].architecture
        return rank < len(self.runs) and self.runs[rank].architecture == own

    def mismatch(self, platform: Platform) -> str:
        """Returns a sentence that names both platforms; empty where the image runs here."""
        if self.rank(platform) is not None:
            return ""
        same = platform.architecture == self.runs[0].architecture
        own = str(self.runs[0]) if same else self.name
        return (
            f"The image is built for {platform}, and this machine is {own}: without an emulator"
            ' its programs end with "exec format error" or "illegal instruction"'
        )


def normalised(system: object, architecture: object, variant: object) -> Platform:
    """Returns the platform that an image means by these words."""
    os_name, arch, form = (_word(text) for text in (system, architecture, variant))
    if arch in _ALIASES:
        arch, implied = _ALIASES[arch]
        form = implied or form
    if form[:1].isdigit():
        form = f"v{form}"
    if arch == "arm":
        form = form or "v7"
    form = form.removesuffix(".0")
    if form == _BASE.get(arch) or arch == "386":
        form = ""
    return Platform(os=_SYSTEMS.get(os_name, os_name), architecture=arch, variant=form)


def of(fields: Mapping[str, Any]) -> Platform:
    """Returns the platform of an index entry's `platform`, or of an image's config."""
    return normalised(fields.get("os"), fields.get("architecture"), fields.get("variant"))


@cache
def machine(name: str = "") -> Machine:
    """Returns what this machine runs, or a machine of uname's `name` with the least of CPUs."""
    own = os.uname().machine
    return machine_of(name or own, _flags() if name in {"", own} else frozenset())


def machine_of(name: str, flags: frozenset[str]) -> Machine:
    """Returns what a machine runs by uname's name of it and the flags of its CPU."""
    if sys.byteorder == "little":
        name = _LITTLE.get(name, name)
    own = normalised(_LINUX, name, "")
    match own.architecture:
        case "amd64":
            variants = [*_levels(_AMD64_LEVELS, flags)[::-1], ""]
            runs = [*_all("amd64", variants), *_all("386", [""])]
        case "arm64":
            eighth = _levels(_ARM64_LEVELS, flags)
            ninth = [_ARM64_NINTH[level] for level in eighth if level in _ARM64_NINTH]
            variants = [*(ninth[::-1] if _SVE2 in flags else ()), *eighth[::-1], ""]
            runs = [*_all("arm64", variants), *_all("arm", _arm_down_from("v8"))]
        case "arm":
            runs = _all("arm", _arm_down_from(own.variant))
        case _:
            runs = [own]
    return Machine(runs=tuple(runs))


def _levels(levels: tuple[tuple[str, str], ...], flags: frozenset[str]) -> list[str]:
    """Returns the levels that a CPU has, lowest first."""
    found: list[str] = []
    for level, needed in levels:
        if not flags.issuperset(needed.split()):
            break
        found.append(level)
    return found


def _all(architecture: str, variants: list[str]) -> list[Platform]:
    return [Platform(architecture=architecture, variant=variant) for variant in variants]


def _arm_down_from(variant: str) -> list[str]:
    return [f"v{number}" for number in range(int(variant[1:]), 4, -1)]


def _word(text: object) -> str:
    return text.strip().lower() if isinstance(text, str) else ""


def _flags() -> frozenset[str]:
    """Returns the first CPU's flags; none where the kernel shows none."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip().lower() in {"flags", "features"}:
                    return frozenset(value.lower().split())
    except OSError:
        pass
    return frozenset()
