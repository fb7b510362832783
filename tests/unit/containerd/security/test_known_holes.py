"""Versions of containerd and the runtimes, and their known holes."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from containerd.security import known_holes

NOVEMBER = ["CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"]


def names(program: str, version: str, changelogs: Path = Path("/nonexistent")) -> list[str]:
    return [hole.cve for hole in known_holes.of(program, version, changelogs)]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.1.11", ["CVE-2024-21626", "CVE-2024-45310", *NOVEMBER]),
        ("1.0.0-rc93", ["CVE-2024-21626", "CVE-2024-45310", *NOVEMBER]),
        ("1.1.12", ["CVE-2024-45310", *NOVEMBER]),
        ("1.1.14", NOVEMBER),
        ("1.2.0-rc.2", ["CVE-2024-45310", *NOVEMBER]),
        ("1.2.0-rc.3", NOVEMBER),
        ("1.2.7", NOVEMBER),
        ("1.2.8", []),
        ("1.3.2", NOVEMBER),
        ("1.3.3", []),
        ("1.4.0-rc.2", NOVEMBER),
        ("1.4.0-rc.3", []),
        ("1.4.0", []),
        ("1.5.0", []),
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
    assert names("runc", "1.1.5+ds1-1+deb12u1", tmp_path) == ["CVE-2024-45310", *NOVEMBER]
    # The package's changelog does not describe a self-built program in the package's place.
    assert "CVE-2024-21626" in names("runc", "1.1.5", tmp_path)
    (directory / "changelog.Debian.gz").write_bytes(b"no gzip")
    assert "CVE-2024-21626" in names("runc", "1.1.5+ds1-1+deb12u1", tmp_path)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("1.1.11", "CVE-2024-21626 (an image opens the host), CVE-2025-31133"),
        ("1.1.12", "install runc 1.2.8 or 1.3.3 or 1.4.0-rc.3, or a package of the distribution"),
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
    assert names("runc", "1.1.5+ds1-1+deb12u3", tmp_path) == ["CVE-2024-45310"]
    changelog.write_bytes(gzip.compress(b"CVE-2024-21626"))
    assert "CVE-2025-52881" in known_holes.refusal("runc", "1.1.5+ds1-1+deb12u3", tmp_path)


def test_a_hole_for_users_of_the_host_or_for_modes_of_files_is_no_reason() -> None:
    assert names("containerd", "1.6.19") != []
    assert known_holes.refusal("containerd", "1.6.19", Path("/nonexistent")) == ""
    assert known_holes.refusal("crun", "1.4.3", Path("/nonexistent")) == ""
    assert "CVE-2020-15257" in known_holes.refusal("containerd", "1.4.2", Path("/nonexistent"))


def test_containerd_and_crun_have_theirs() -> None:
    assert names("containerd", "1.6.20") == ["CVE-2024-25621"]
    assert names("containerd", "v2.1.5") == []
    assert "CVE-2020-15257" in names("containerd", "1.4.2")
    assert names("crun", "1.4.3") == ["CVE-2022-27650"]
    assert names("crun", "1.8.1") == []
    assert names("runsc", "release-20221219.0") == []
