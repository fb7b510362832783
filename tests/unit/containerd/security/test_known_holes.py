"""Versions of containerd and the runtimes, and their known holes."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from containerd.security import known_holes

NOVEMBER = ["CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"]
LINKS = "CVE-2026-41579"
RESTORE = "CVE-2026-119101"
OLD = ["CVE-2024-25621", "CVE-2026-53488"]
JUNE = ["CVE-2026-53488", "CVE-2026-53489", "CVE-2026-53492"]
DEV = ["CVE-2026-88264", "CVE-2026-88265"]


def names(program: str, version: str, changelogs: Path = Path("/nonexistent")) -> list[str]:
    return [hole.cve for hole in known_holes.of(program, version, changelogs)]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.1.11", ["CVE-2024-21626", "CVE-2024-45310", *NOVEMBER, LINKS, RESTORE]),
        ("1.0.0-rc93", ["CVE-2024-21626", "CVE-2024-45310", *NOVEMBER, LINKS, RESTORE]),
        ("1.1.12", ["CVE-2024-45310", *NOVEMBER, LINKS, RESTORE]),
        ("1.1.14", [*NOVEMBER, LINKS, RESTORE]),
        ("1.2.0-rc.2", ["CVE-2024-45310", *NOVEMBER, LINKS, RESTORE]),
        ("1.2.0-rc.3", [*NOVEMBER, LINKS, RESTORE]),
        ("1.2.7", [*NOVEMBER, LINKS, RESTORE]),
        ("1.2.8", [LINKS, RESTORE]),
        ("1.3.2", [*NOVEMBER, LINKS, RESTORE]),
        ("1.3.3", [LINKS, RESTORE]),
        ("1.3.6", [RESTORE]),
        ("1.3.7", []),
        ("1.4.0-rc.2", [*NOVEMBER, LINKS, RESTORE]),
        ("1.4.0-rc.3", [LINKS, RESTORE]),
        ("1.4.3", [RESTORE]),
        ("1.4.4", []),
        ("1.5.0-rc.2", [LINKS, RESTORE]),
        ("1.5.0", [RESTORE]),
        ("1.5.3", []),
        ("1.6.0-rc.1", [RESTORE]),
        ("1.6.0", []),
        ("2.0.0", []),
        ("unknown", []),
        ("", []),
    ],
)
def test_runc_has_the_holes_of_its_release(version: str, expected: list[str]) -> None:
    assert names("runc", version) == expected


def test_a_distribution_closes_holes_without_a_new_number(tmp_path: Path) -> None:
    directory = tmp_path / "runc"
    directory.mkdir()
    with gzip.open(directory / "changelog.Debian.gz", "wb") as file:
        file.write(b"runc (1.1.5+ds1-1+deb12u1) bookworm\n  * CVE-2024-21626: leaked fds\n")
    assert names("runc", "1.1.5+ds1-1+deb12u1", tmp_path) == [
        "CVE-2024-45310",
        *NOVEMBER,
        LINKS,
        RESTORE,
    ]
    # The package's changelog does not describe a self-built program in the package's place.
    assert "CVE-2024-21626" in names("runc", "1.1.5", tmp_path)
    (directory / "changelog.Debian.gz").write_bytes(b"no gzip")
    assert "CVE-2024-21626" in names("runc", "1.1.5+ds1-1+deb12u1", tmp_path)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("1.1.11", "CVE-2024-21626 (an image opens the host), CVE-2025-31133"),
        ("1.1.12", "install runc 1.2.8 or 1.3.3 or 1.4.0-rc.3 or newer, or a package of the dist"),
        ("1.3.2-1ubuntu1", "runc 1.3.2-1ubuntu1 has known holes: CVE-2025-31133"),
        ("1.3.3", ""),
        ("unknown", ""),
    ],
)
def test_a_hole_that_opens_the_host_is_a_reason_to_refuse(version: str, words: str) -> None:
    said = known_holes.refusal("runc", version, Path("/nonexistent"))
    assert words in said
    assert bool(said) == bool(words)


def test_a_distributions_package_with_every_hole_closed_is_no_reason(tmp_path: Path) -> None:
    (tmp_path / "runc").mkdir()
    changelog = tmp_path / "runc" / "changelog.Debian.gz"
    changelog.write_bytes(gzip.compress("\n".join(["CVE-2024-21626", *NOVEMBER]).encode()))
    assert known_holes.refusal("runc", "1.1.5+ds1-1+deb12u3", tmp_path) == ""
    assert names("runc", "1.1.5+ds1-1+deb12u3", tmp_path) == ["CVE-2024-45310", LINKS, RESTORE]
    changelog.write_bytes(gzip.compress(b"CVE-2024-21626"))
    assert "CVE-2025-52881" in known_holes.refusal("runc", "1.1.5+ds1-1+deb12u3", tmp_path)


def test_a_hole_for_users_of_the_host_or_for_modes_of_files_is_no_reason() -> None:
    assert names("containerd", "1.6.19") != []
    assert known_holes.refusal("containerd", "1.6.19", Path("/nonexistent")) == ""
    assert known_holes.refusal("crun", "1.4.3", Path("/nonexistent")) == ""
    assert "CVE-2020-15257" in known_holes.refusal("containerd", "1.4.2", Path("/nonexistent"))


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.4.2", ["CVE-2020-15257", "CVE-2021-32760", "CVE-2021-41103", *OLD]),
        ("1.6.20", OLD),
        ("1.7.29", ["CVE-2026-53488"]),
        ("1.7.33", []),
        ("2.0.6", OLD),
        ("2.0.10", []),
        ("2.1.0-rc.1", OLD),
        ("2.1.0", ["CVE-2024-25621", "CVE-2025-47290", *JUNE, "CVE-2026-95837"]),
        ("v2.1.1", ["CVE-2024-25621", *JUNE, "CVE-2026-95837"]),
        ("2.1.9", ["CVE-2026-95837"]),
        ("2.2.4", [*JUNE, "CVE-2026-95837"]),
        ("2.2.6", ["CVE-2026-95837"]),
        ("2.2.7", []),
        ("2.3.1", [*JUNE, "CVE-2026-95837"]),
        ("v2.3.4", []),
        ("2.4.0", []),
    ],
)
def test_containerd_has_the_holes_of_its_release(version: str, expected: list[str]) -> None:
    assert names("containerd", version) == expected


@pytest.mark.parametrize("version", ["2.0.5", "2.1.0-rc.1", "2.1.1", "2.2.0"])
def test_a_hole_of_a_single_release_is_no_reason_before_or_after(version: str) -> None:
    assert known_holes.refusal("containerd", version, Path("/nonexistent")) == ""
    refused = known_holes.refusal("containerd", "2.1.0", Path("/nonexistent"))
    assert "CVE-2025-47290 (an image writes the host's files); install containerd 2.1.1" in refused


def test_holes_that_need_cri_or_a_checkpoint_are_no_reason() -> None:
    assert {*JUNE, "CVE-2026-95837"} <= {*names("containerd", "2.2.4")}
    assert known_holes.refusal("containerd", "2.2.4", Path("/nonexistent")) == ""
    assert known_holes.refusal("runc", "1.5.2", Path("/nonexistent")) == ""
    assert known_holes.refusal("crun", "1.30", Path("/nonexistent")) == ""


@pytest.mark.parametrize("program", ["runc", "containerd"])
def test_the_named_releases_have_no_hole_that_opens_the_host(program: str) -> None:
    for version in ("1.1.11", "1.2.7", "1.3.2", "1.4.2", "2.1.0"):
        said = known_holes.refusal(program, version, Path("/nonexistent"))
        _, install, advice = said.partition(f"install {program} ")
        releases = advice.split(" or newer")[0].split(" or ") if install else []
        for release in releases:
            assert known_holes.refusal(program, release, Path("/nonexistent")) == ""


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.4.3", ["CVE-2022-27650", "CVE-2026-47766", *DEV, "CVE-2026-115520"]),
        ("1.4", ["CVE-2022-27650", "CVE-2026-47766", *DEV, "CVE-2026-115520"]),
        ("1.8.1", ["CVE-2026-47766", *DEV, "CVE-2026-115520"]),
        ("1.27.1", ["CVE-2026-47766", *DEV, "CVE-2026-115520"]),
        ("1.28", [*DEV, "CVE-2026-115520"]),
        ("1.30.1", ["CVE-2026-115520"]),
        ("1.31", []),
    ],
)
def test_crun_has_the_holes_of_its_release(version: str, expected: list[str]) -> None:
    assert names("crun", version) == expected


def test_a_program_without_a_list_has_no_known_hole() -> None:
    assert names("runsc", "release-20221219.0") == []
