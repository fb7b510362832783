"""Versions printed by runtimes, and the consequences for read-only mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.processes import runtime_versions
from containerd import runtimes
from containerd.runtimes import DEFAULT, Runtime


def program(tmp_path: Path, name: str, says: str) -> Path:
    path = tmp_path / name
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("echo runc version 1.1.5+ds1; echo commit: 1.1.5+ds1-1+deb12u1", "1.1.5+ds1-1+deb12u1"),
        ("echo runc version 1.1.12-0ubuntu2~22.04.1", "1.1.12-0ubuntu2~22.04.1"),
        # The hash of a commit is no version.
        ("echo crun version 1.14.4; echo commit: f8adeb096be060b", "1.14.4"),
        ("echo runc version v1.2.0-rc.1", "v1.2.0-rc.1"),
        ("echo something else", ""),
        ("exit 1", ""),
    ],
)
def test_a_version_has_a_distributions_revision(tmp_path: Path, says: str, expected: str) -> None:
    assert runtime_versions.version(program(tmp_path, "runc", says)) == expected


def test_a_program_that_is_not_there_tells_nothing(tmp_path: Path) -> None:
    assert runtime_versions.version(tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("says", "lacks"),
    [
        ("echo runc version 1.0.3", "runc 1.0 is older than 1.1"),
        ("echo runc version 1.1.0", ""),
        ("echo what", "runc does not print its version"),
    ],
)
def test_an_old_runtime_leaves_what_is_below_a_read_only_mount_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, lacks: str
) -> None:
    path = program(tmp_path, "runc", says)
    monkeypatch.setattr(runtimes, "program", lambda _: path)
    monkeypatch.setattr("platform.release", lambda: "6.1.0-18-amd64")
    assert runtime_versions.lacks_recursive_readonly(Runtime(name=DEFAULT)) == lacks
    monkeypatch.setattr("platform.release", lambda: "5.10.0-28-amd64")
    found = runtime_versions.lacks_recursive_readonly(Runtime(name=DEFAULT))
    assert found == "Linux 5.10.0-28-amd64 is older than 5.12"
    gvisor = Runtime(name="io.containerd.runsc.v1")
    assert runtime_versions.lacks_recursive_readonly(gvisor) == ""
    assert not runtime_versions.takes_rro(gvisor)
