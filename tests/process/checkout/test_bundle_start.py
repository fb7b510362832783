"""Tests of the start programs of the archive's Python, and of install.sh's refusals."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.plugin.plugin_dir import ROOT

PROGRAMS = ROOT / "packaging/bundle"
LOADER = '#!/bin/sh\nprintf "%s\\n" "$@" "preload=$LD_PRELOAD"\n'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Makes an archive with a loader that prints the arguments."""
    home = tmp_path / "the archive"
    for folder in ("plugins", "python/bin", "python/loader"):
        (home / folder).mkdir(parents=True)
    shutil.copy(PROGRAMS / "containerd-driver", home / "plugins")
    shutil.copy(PROGRAMS / "python3", home / "python/bin")
    loader = home / "python/loader/containerd-driver"
    loader.write_text(LOADER)
    loader.chmod(0o755)
    return home


def printed(*command: str | Path, folder: Path | None = None) -> list[str]:
    """Runs a program with LD_PRELOAD, a library for all programs, in the environment."""
    environment = {**os.environ, "LD_PRELOAD": "/no/library.so"}
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return done.stdout.decode().splitlines()


def expected(home: Path, *words: str) -> list[str]:
    python = home / "python"
    return [
        *("--argv0", f"{python}/bin/python3", "--library-path", f"{python}/lib"),
        *(f"{python}/bin/python3.11", *words, "preload="),
    ]


def test_the_program_finds_its_archive_through_links(home: Path, tmp_path: Path) -> None:
    wanted = expected(home, "-I", f"{home}/driver/plugins/containerd-driver", "run", "a b")
    program = home / "plugins/containerd-driver"
    first, second = tmp_path / "first", tmp_path / "second"
    first.symlink_to("the archive/plugins/containerd-driver")
    second.symlink_to(first)
    (tmp_path / "current").symlink_to(home)
    for path in (program, first, second, tmp_path / "current/plugins/containerd-driver"):
        assert printed(path, "run", "a b") == wanted
    assert printed("./containerd-driver", "run", "a b", folder=program.parent) == wanted
    assert printed("sh", "containerd-driver", "run", "a b", folder=program.parent) == wanted


def test_children_of_the_driver_start_the_same_python(home: Path) -> None:
    python = home / "python/bin/python3"
    assert printed(python, "-I", "a.py") == expected(home, "-I", "a.py")


def test_a_copy_without_its_archive_says_so(tmp_path: Path) -> None:
    copy = tmp_path / "plugins" / "containerd-driver"
    copy.parent.mkdir()
    shutil.copy(PROGRAMS / "containerd-driver", copy)
    done = subprocess.run([copy], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "a copy without the archive" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="install.sh asks for root first")
@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--prefix", "here"], "--prefix wants an absolute path"),
        (["--prefix", "/a b"], "letters, digits"),
        (["--uninstall", "--prefix", "/nowhere"], "no installation in /nowhere"),
        (["--prefix", "/nowhere"], "is no unpacked archive"),
    ],
)
def test_the_installer_refuses_before_its_first_step(words: list[str], error: str) -> None:
    program = [str(PROGRAMS / "install.sh"), *words]
    done = subprocess.run(program, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert error in done.stderr
    assert done.stdout == ""
