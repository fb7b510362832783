"""Platforms of a machine: by the rules of containerd's matcher, and by the CPU's features."""

from __future__ import annotations

import pytest

from containerd.image import platforms
from containerd.image.platforms import Platform

V2 = "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"
V3 = f"{V2} abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"
V4 = f"{V3} avx512bw avx512cd avx512dq avx512f avx512vl"
NEOVERSE = "atomics asimdrdm crc32 dcpop fcma jscvt lrcpc asimddp dit flagm ilrcpc uscat"
EIGHTH = "arm64/v8.4 arm64/v8.3 arm64/v8.2 arm64/v8.1 arm64"
GRAVITON_4 = f"{NEOVERSE} flagm2 frint sb bf16 i8mm sve2"


@pytest.mark.parametrize(
    ("machine", "flags", "runs"),
    [
        ("x86_64", "", "amd64 386"),
        ("x86_64", V2, "amd64/v2 amd64 386"),
        ("x86_64", f"{V3} avx512f", "amd64/v3 amd64/v2 amd64 386"),
        ("x86_64", V4, "amd64/v4 amd64/v3 amd64/v2 amd64 386"),
        # A CPU without a level's features has no higher level: hypervisors hide features.
        ("x86_64", V4.replace("movbe", ""), "amd64/v2 amd64 386"),
        ("i686", V4, "386"),
        ("aarch64", "fp asimd", "arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        ("aarch64", "atomics asimdrdm crc32", "arm64/v8.1 arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        (
            "aarch64",
            NEOVERSE,
            f"{EIGHTH} arm/v8 arm/v7 arm/v6 arm/v5",
        ),
        (
            "aarch64",
            GRAVITON_4,
            f"arm64/v9.1 arm64/v9 arm64/v8.6 arm64/v8.5 {EIGHTH} arm/v8 arm/v7 arm/v6 arm/v5",
        ),
        ("armv8l", "", "arm/v8 arm/v7 arm/v6 arm/v5"),
        ("armv7l", "", "arm/v7 arm/v6 arm/v5"),
        ("armv6l", "", "arm/v6 arm/v5"),
        ("riscv64", "", "riscv64"),
        ("ppc64le", "", "ppc64le"),
        ("s390x", "", "s390x"),
        ("loongarch64", "", "loong64"),
    ],
)
def test_a_machine_runs_the_best_first(machine: str, flags: str, runs: str) -> None:
    found = platforms.machine_of(machine, frozenset(flags.split())).runs
    assert " ".join(str(platform).removeprefix("linux/") for platform in found) == runs


@pytest.mark.parametrize(
    ("words", "platform"),
    [
        (("linux", "amd64", ""), "linux/amd64"),
        (("Linux", "AMD64", "V1"), "linux/amd64"),
        (("LINUX", "x86_64", "v3"), "linux/amd64/v3"),
        (("", "x86-64", "3"), "linux/amd64/v3"),
        (("linux", "i386", "v2"), "linux/386"),
        (("linux", "aarch64", "v8"), "linux/arm64"),
        (("linux", "arm64", "8"), "linux/arm64"),
        (("linux", "arm64", "v8.0"), "linux/arm64"),
        (("linux", "arm64", "9.0"), "linux/arm64/v9"),
        (("linux", "arm", ""), "linux/arm/v7"),
        (("linux", "arm", "6"), "linux/arm/v6"),
        (("linux", "armhf", ""), "linux/arm/v7"),
        (("linux", "armel", "v5"), "linux/arm/v6"),
        (("macos", "arm64", ""), "darwin/arm64"),
        (("windows", "amd64", ""), "windows/amd64"),
        ((None, None, None), "linux"),
        (([], {"a": 1}, 5), "linux"),
        (("unknown", "unknown", ""), "unknown/unknown"),
    ],
)
def test_a_platform_is_normalised(words: tuple[object, object, object], platform: str) -> None:
    assert str(platforms.normalised(*words)) == platform


def test_a_platform_of_no_architecture_is_behind_all_that_run() -> None:
    machine = platforms.machine_of("x86_64", frozenset())
    ranks = [
        machine.rank(Platform(architecture="amd64")),
        machine.rank(Platform(architecture="386")),
        machine.rank(Platform()),
    ]
    assert ranks == [0, 1, 2]
    assert [machine.is_native(rank) for rank in ranks if rank is not None] == [True, False, False]
    for other in ("arm64", "unknown"):
        assert machine.rank(Platform(architecture=other)) is None
    assert machine.rank(Platform(os="windows", architecture="amd64")) is None
    assert machine.rank(Platform(architecture="amd64", variant="v2")) is None


def test_a_mismatch_names_both_platforms() -> None:
    machine = platforms.machine_of("x86_64", frozenset(V2.split()))
    assert machine.mismatch(Platform(architecture="amd64", variant="v2")) == ""
    assert machine.mismatch(Platform()) == ""
    words = machine.mismatch(Platform(architecture="arm64"))
    assert "linux/arm64" in words
    assert "linux/amd64" in words
    words = machine.mismatch(Platform(architecture="amd64", variant="v3"))
    assert "linux/amd64/v3" in words
    assert "linux/amd64/v2" in words
