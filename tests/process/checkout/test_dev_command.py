"""Tests of `./dev` on a machine where a package cannot be installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from actors.processes.child_process import ROOT

SUITES = (
    "./dev guest wants a suite: bookworm, trixie, sid, one of them with -vm or -bare,"
    " bullseye-bare, trixie-selinux, or bookworm-arm64"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Makes a checkout with all Debian packages present, so only pip has work to do."""
    for name in ("dev", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    programs = tmp_path / "programs"
    programs.mkdir()
    query = programs / "dpkg-query"
    query.write_text("#!/bin/sh\nprintf installed\n")
    query.chmod(0o755)
    return tmp_path


def dev(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = f"{checkout / 'programs'}:/usr/local/bin:/usr/bin:/bin"
    return subprocess.run(
        [str(checkout / "dev"), *words],
        check=False,
        capture_output=True,
        text=True,
        # pip contacts no index and finds nothing.
        env={"PATH": path, "HOME": str(checkout), "PIP_NO_INDEX": "1"},
    )


def test_a_failed_pip_ends_every_command_and_is_tried_again(checkout: Path) -> None:
    for command in ("setup", "test"):
        run = dev(checkout, command)
        assert run.returncode == 1, run.stderr
        assert "making .venv" in run.stderr
        assert "run this again" in run.stderr.splitlines()[-1]
        assert not (checkout / ".venv" / "stamp").exists()


def test_a_wrong_command_is_named_before_the_list_of_right_ones(checkout: Path) -> None:
    run = dev(checkout, "tset")
    assert run.returncode == 2
    assert run.stderr.startswith("./dev has no command 'tset'\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("guest",), f"{SUITES}\n"),
        (("guest", "../x"), f"{SUITES}\n"),
        (("plugin",), "./dev plugin wants one directory: the plugin_dir of a Nomad agent\n"),
    ],
)
def test_a_word_that_lacks_or_is_wrong_is_told_before_any_work(
    checkout: Path, words: tuple[str, ...], told: str
) -> None:
    run = dev(checkout, *words)
    assert (run.returncode, run.stderr) == (2, told)


def test_a_package_that_only_some_distributions_have_is_passed_over(checkout: Path) -> None:
    programs = checkout / "programs"
    scripts = {
        "dpkg-query": "for p; do :; done; case $p in runsc|runc) ;; *) printf installed ;; esac",
        "apt-cache": 'case $2 in runsc) echo "Candidate: (none)" ;; *) echo "Candidate: 1" ;; esac',
        "apt-get": f'echo "$@" >>{checkout}/asked',
        "id": "echo 0",
    }
    for name, script in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    run = dev(checkout, "setup")
    assert (
        "runsc is not in this system's package lists, tests that need it are skipped" in run.stderr
    )
    asked = (checkout / "asked").read_text().splitlines()
    assert asked[1].split()[-1] == "runc"
    assert "runsc" not in asked[1]
