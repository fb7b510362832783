"""Tests of commands with broken streams: no traceback, and the exit status stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.plugin.plugin_dir import ROOT
from tests.support.waiting import slowed

PROGRAM = (sys.executable, "-I", str(ROOT / "plugin" / "main.py"))
DOCTOR = ("doctor", "--config", "containerd_address=/none")
# Each command with the exit status on a healthy system.
COMMANDS = [(("run", "--help"), 0), (DOCTOR, 1)]


def ended(words: tuple[str, ...], stdout: int | None) -> tuple[int, str]:
    """Returns (exit status, stderr) of a command; without `stdout` the stream is closed."""
    before = ("/bin/sh", "-c", 'exec "$@" >&-', "sh") if stdout is None else ()
    done = subprocess.run(
        [*before, *PROGRAM, *words],
        check=False,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(("words", "status"), COMMANDS)
def test_a_reader_that_has_seen_enough_is_no_failure(words: tuple[str, ...], status: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    assert ended(words, writing) == (status, "")
    os.close(writing)


@pytest.mark.parametrize(("words", "status"), COMMANDS)
def test_a_closed_stdout_is_like_one_that_nobody_reads(words: tuple[str, ...], status: int) -> None:
    assert ended(words, None) == (status, "")


def test_a_run_without_stdout_says_what_is_wrong() -> None:
    status, err = ended(("run", "/none"), None)
    assert (status, err) == (125, "error: /none: cannot be read: No such file or directory\n")


@pytest.mark.parametrize("words", [words for words, _ in COMMANDS])
def test_a_full_disk_below_stdout_is_a_sentence(words: tuple[str, ...]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    status, err = ended(words, full)
    os.close(full)
    assert (status, err.count("\n")) == (1, 1)
    assert "standard output cannot be written: No space left on device" in err


def test_ctrl_c_before_anything_is_done_is_a_word(tmp_path: Path) -> None:
    job = tmp_path / "job"
    os.mkfifo(job)
    process = subprocess.Popen([*PROGRAM, "spec", str(job)], stderr=subprocess.PIPE, text=True)
    # Opened as soon as the command reads it.
    with job.open("w"):
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=slowed(30))
    assert (process.returncode, err) == (130, "error: interrupted\n")


def test_help_is_as_wide_as_the_terminal() -> None:
    done = subprocess.run(
        [*PROGRAM, "run", "--help"],
        check=True,
        capture_output=True,
        text=True,
        env={"COLUMNS": "60"},
    )
    assert max(map(len, done.stdout.splitlines())) <= 60
