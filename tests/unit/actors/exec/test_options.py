"""Options before a command in a task."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from actors.exec.options import MARK, ExecOptions, read
from actors.model.gates import EXEC_OPTIONS
from proto.errors import Code, DriverError

ROOM = 123 - len("rpc error: code = Unknown desc = ")
"""Bytes of an error that `nomad alloc exec` shows."""


def refusal(words: str, *allowed: str) -> DriverError:
    with pytest.raises(DriverError) as caught:
        read(words.split(" "), allowed or EXEC_OPTIONS)
    assert len(str(caught.value).encode()) <= ROOM
    return caught.value


def test_options_stand_between_the_mark_and_two_dashes() -> None:
    words = [
        MARK,
        "user=app:web",
        "cwd=/srv//x/",
        "env=A=b=c",
        "env=EMPTY=",
        "--",
        "sh",
        "--",
        "-l",
    ]
    assert read(words, EXEC_OPTIONS) == ExecOptions(
        command=("sh", "--", "-l"),
        user="app:web",
        cwd="/srv/x",
        env={"A": "b=c", "EMPTY": ""},
    )
    assert read([MARK, "--", "sh"], ("env",)) == ExecOptions(command=("sh",))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("exec:/ user=app sh", "needs -- before the command"),
        ("exec:/ user=app --", "needs a command after --"),
        ("exec:/ user=app -- ", "needs a command after --"),
        ("exec:/ usr=app -- sh", "usr=app: write user=NAME, cwd=PATH or env=NAME=VALUE"),
        ("exec:/ root=1 -- sh", "root=1: write user=NAME"),
        ("exec:/ app -- sh", "app: write user=NAME"),
        ("exec:/ user= -- sh", "user= needs a value"),
        ("exec:/ user=a user=b -- sh", "user is set twice"),
        ("exec:/ cwd=srv -- sh", "cwd=srv: write an absolute path outside /proc and /sys"),
        ("exec:/ cwd=/x/../proc/self/fd/8 -- sh", "write an absolute path"),
        ("exec:/ env=A -- sh", "env=A: write env=NAME=VALUE"),
        ("exec:/ env==b -- sh", "env==b: write env=NAME=VALUE"),
        ("exec:/ env=A=\0 -- sh", "write env=NAME=VALUE"),
        (f"exec:/ {'é' * 4000} -- sh", "write user=NAME"),
    ],
)
def test_a_wrong_option_is_told_in_a_sentence(words: str, said: str) -> None:
    error = refusal(words)
    assert said in str(error)
    assert error.code is Code.INVALID


def test_an_option_that_the_operator_does_not_allow_is_refused() -> None:
    error = refusal("exec:/ user=root -- sh", "cwd", "env")
    assert str(error) == "exec:/ user: the node's exec_options allow cwd, env"
    assert error.code is Code.DENIED


def test_without_exec_options_no_command_has_options() -> None:
    with pytest.raises(DriverError, match="exec_options of the plugin block is empty") as caught:
        read([MARK, "--", "sh"], ())
    assert caught.value.code is Code.DENIED
    assert len(str(caught.value)) <= ROOM


@pytest.mark.parametrize("kind", ["program", "directory"])
def test_the_mark_is_no_program(tmp_path: Path, kind: str) -> None:
    named = tmp_path / MARK.removesuffix("/")
    if kind == "directory":
        named.mkdir()
    else:
        named.write_text("#!/bin/sh\n")
        named.chmod(0o755)
    with pytest.raises((NotADirectoryError, PermissionError)):
        subprocess.run([MARK], cwd=tmp_path, check=False)
