"""Linters and type checkers are tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("plugin", "actors", "containerd", "workers", "proto")


def run(*command: str) -> None:
    """Fails with what the tool printed."""
    tool = shutil.which(command[0], path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip(f"{command[0]} is not installed: ./dev setup")
    done = subprocess.run(
        [tool, *command[1:]], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}{done.stderr[-2000:]}"


def test_ruff_has_nothing_to_say() -> None:
    run("ruff", "check", "--output-format=concise", ".")


def test_the_code_is_formatted() -> None:
    run("ruff", "format", "--check", ".")


def test_mypy_is_content() -> None:
    run("mypy", *PRODUCT)


def test_pyright_is_content() -> None:
    run("pyright")


def test_the_shell_scripts_parse() -> None:
    for script in ("dev", ".ci/run"):
        subprocess.run(["bash", "-n", str(ROOT / script)], check=True)
