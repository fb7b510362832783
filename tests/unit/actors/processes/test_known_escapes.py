"""The judgement of a node by the holes of its runtime and its containerd."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.processes import known_escapes
from containerd import runtimes
from containerd.runtimes import DEFAULT, Runtime
from containerd.security import known_holes
from proto.errors import Code


@pytest.fixture
def runc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the path of a stand-in for each runtime's program."""
    monkeypatch.setattr(runtimes, "program", lambda name: tmp_path / name)
    monkeypatch.setattr(known_holes, "_CHANGELOGS", tmp_path / "none")
    return tmp_path / "runc"


def says(program: Path, version: str) -> None:
    program.write_text(f"#!/bin/sh\necho runc version {version}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("version", "containerd", "words"),
    [
        ("1.1.11", "1.7.29", "runc 1.1.11 has known holes: CVE-2024-21626"),
        ("1.3.3", "1.7.29", ""),
        ("1.3.3", "1.4.2", "containerd 1.4.2 has known holes: CVE-2020-15257"),
        ("1.2.7", "1.4.2", "1.4.0-rc.3 or newer, or a package of the distribution"),
    ],
)
def test_a_hole_of_either_program_is_a_reason(
    runc: Path, version: str, containerd: str, words: str
) -> None:
    says(runc, version)
    reason = known_escapes.of_node(Runtime(name=DEFAULT), containerd)
    assert words in reason
    assert bool(reason) == bool(words)


def test_a_task_is_judged_by_its_own_runtime(runc: Path) -> None:
    says(runc, "1.1.11")
    says(runc.parent / "crun", "1.8")
    assert known_escapes.of_node(Runtime(name=DEFAULT, binary_name="crun"), "2.2.0") == ""
    assert known_escapes.of_node(Runtime(name="io.containerd.kata.v2"), "2.2.0") == ""


def test_the_refusal_names_the_option_that_allows_the_node() -> None:
    error = known_escapes.refused("runc 1.1.11 has known holes: CVE-2024-21626 (an image …)")
    assert error.code is Code.DENIED
    assert "this node allows no known holes: runc 1.1.11" in str(error)
    assert "allow_known_holes = true" in error.resolution
