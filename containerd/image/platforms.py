"""Platforms of images, and their order on this machine.

The rules are the rules of containerd's package `platforms`: names are normalised, 32-bit programs
are the last resort, and OS version and OS features have no effect on Linux. In addition, a variant
of amd64 or arm64 must match the features of the CPU.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from proto.values import dataclass

_LINUX = "linux"
# Other names of an architecture, such as uname's: name and variant in images.
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
# uname has the same name for both byte orders, images have two names.
_LITTLE = {"mips": "mipsle", "mips64": "mips64le"}
_SYSTEMS = {"": _LINUX, "macos": "darwin"}
# Variant of an architecture without a variant; a normalised platform omits the variant.
_BASE = {"amd64": "v1", "arm64": "v8"}

# Levels of the psABI. Each level adds flags of /proc/cpuinfo to the level before.
_AMD64_LEVELS: tuple[tuple[str, str], ...] = (
    ("v2", "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"),
    ("v3", "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"),
    ("v4", "avx512bw avx512cd avx512dq avx512f avx512vl"),
)
# Arm's levels, by the mandatory features that the kernel shows.
_ARM64_LEVELS: tuple[tuple[str, str], ...] = (
    ("v8.1", "atomics asimdrdm crc32"),
    ("v8.2", "dcpop"),
    ("v8.3", "fcma jscvt lrcpc"),
    ("v8.4", "asimddp dit flagm ilrcpc uscat"),
    ("v8.5", "flagm2 frint sb"),
    ("v8.6", "bf16 i8mm"),
    ("v8.7", "wfxt"),
)
# An Armv9 CPU has the features of the Armv8 level in the same row, and SVE2.
_ARM64_NINTH = {"v8.5": "v9", "v8.6": "v9.1", "v8.7": "v9.2"}
_SVE2 = "sve2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A normalised platform; architecture is empty if the image does not state the architecture."""

    os: str = _LINUX
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The platforms that a machine runs, best first.

    exact: True for the platforms of a job's choice: no image without one of them is taken.
    """

    runs: tuple[Platform, ...]
    exact: bool = False

    @property
    def name(self) -> str:
        """Platform without the CPU's level, for errors."""
        own = self.runs[0]
        return f"{own.os}/{own.architecture}" if own.architecture in _BASE else str(own)

    def rank(self, platform: Platform) -> int | None:
        """Returns the rank of a platform, 0 for the best; None for a platform that does not run.

        A platform without an architecture may run, and ranks behind all others.
        """
        if platform.os == _LINUX and not platform.architecture:
            return len(self.runs)
        return self.runs.index(platform) if platform in self.runs else None

    def is_native(self, rank: int) -> bool:
        """Returns True for the rank of the machine's own architecture."""
        own = self.runs[0].architecture
        return rank < len(self.runs) and self.runs[rank].architecture == own

    def mismatch(self, platform: Platform) -> str:
        """Returns a sentence with both platforms; empty if the machine runs the platform."""
        if self.rank(platform) is not None:
            return ""
        same = platform.architecture == self.runs[0].architecture
        own = str(self.runs[0]) if same else self.name
        return (
            f"The image is built for {platform}, and this machine is {own}: without an emulator"
            ' its programs end with "exec format error" or "illegal instruction"'
        )


def normalised(system: object, architecture: object, variant: object) -> Platform:
    """Returns the normalised platform of the names in an image."""
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
    """Returns the platform of an image's config, or of the `platform` of an index's entry."""
    return normalised(fields.get("os"), fields.get("architecture"), fields.get("variant"))


@cache
def machine(name: str = "") -> Machine:
    """Returns this machine; for another name of uname, a machine with the smallest CPU.

    Args:
        name: a name of uname, or a platform such as `linux/arm64` as a job chooses one.
    """
    if "/" in name:
        return _chosen(*name.split("/"))
    own = os.uname().machine
    return machine_of(name or own, _flags() if name in {"", own} else frozenset())


def _chosen(system: str, architecture: str, variant: str = "") -> Machine:
    """Returns the platforms of a job's choice: the variant and lower ones, by default the best."""
    wanted = normalised(system, architecture, variant)
    own = machine()
    if wanted.architecture not in {platform.architecture for platform in own.runs}:
        own = machine_of(wanted.architecture, frozenset())
    runs = [platform for platform in own.runs if platform.architecture == wanted.architecture]
    if variant:
        lower = runs[runs.index(wanted) + 1 :] if wanted in runs else runs
        runs = [wanted, *lower]
    return Machine(runs=tuple(runs), exact=True)


def machine_of(name: str, flags: frozenset[str]) -> Machine:
    """Returns the machine of uname's name and the CPU's flags."""
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
    """Returns the levels of a CPU, lowest first."""
    reached: list[str] = []
    for level, needed in levels:
        if not flags.issuperset(needed.split()):
            break
        reached.append(level)
    return reached


def _all(architecture: str, variants: list[str]) -> list[Platform]:
    return [Platform(architecture=architecture, variant=variant) for variant in variants]


def _arm_down_from(variant: str) -> list[str]:
    return [f"v{number}" for number in range(int(variant[1:]), 4, -1)]


def _word(text: object) -> str:
    return text.strip().lower() if isinstance(text, str) else ""


def _flags() -> frozenset[str]:
    """Returns the flags of the first CPU; empty if the kernel shows none."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip().lower() in {"flags", "features"}:
                    return frozenset(value.lower().split())
    except OSError:
        pass
    return frozenset()
