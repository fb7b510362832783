"""Linters and type checkers are tests."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.go_build import Builder, BuildError, Target, find_go

ROOT = Path(__file__).resolve().parents[1]
TYPED = ("plugin", "actors", "containerd", "workers", "proto", "tests")
_WITHOUT_GO = "install Go 1.25 or newer from go.dev to lint the workflows"
COMPLETION = ROOT / "packaging/debian/system/bash-completion/containerd-driver"


def run(*command: str) -> None:
    """Fails with the output of the tool."""
    tool = shutil.which(command[0], path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip(f"{command[0]} is not installed: ./dev setup")
    run_program(tool, *command[1:])


def run_program(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-6000:]}{done.stderr[-2000:]}"


def test_ruff_has_nothing_to_say() -> None:
    run("ruff", "check", "--output-format=concise", ".")


def test_the_code_is_formatted() -> None:
    run("ruff", "format", "--check", ".")


def test_mypy_is_content() -> None:
    run("mypy", *TYPED)


def test_pyright_is_content() -> None:
    run("pyright")


def test_words_are_spelled_as_in_a_dictionary() -> None:
    run("codespell", ".")


def scripts() -> Iterator[str]:
    """Yields the programs of the repository that a shell runs."""
    for path in (ROOT / "dev", *ROOT.glob(".ci/*"), *ROOT.glob("packaging/**/*")):
        if path.is_file():
            first = path.read_bytes().partition(b"\n")[0]
            if re.fullmatch(rb"#!.*\b(sh|bash)", first):
                yield str(path)


def test_shellcheck_has_nothing_to_say() -> None:
    found = sorted(scripts())
    assert {"dev", "run", "postinst", "prerm", "postrm"} <= {Path(path).name for path in found}
    run("shellcheck", *found)
    run("shellcheck", "--shell=bash", str(COMPLETION))


def test_actionlint_has_nothing_to_say() -> None:
    try:
        find_go(_WITHOUT_GO)
    except BuildError as error:
        pytest.skip(str(error))
    tools = Builder(
        modules=ROOT / "tests" / "support" / "go_modules",
        cache=Path("~/.cache/containerd-driver/tools").expanduser(),
        without_go=_WITHOUT_GO,
    )
    folder = tools.build("actionlint", Target(folder="actionlint-1.7"))
    workflows = sorted(map(str, ROOT.glob(".github/workflows/*.yml")))
    assert workflows
    # actionlint runs a shellcheck that it finds: the one that the other scripts are checked with.
    checker = Path(sys.executable).with_name("shellcheck")
    run_program(folder / "actionlint", f"-shellcheck={checker}", *workflows)
