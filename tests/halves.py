"""`./dev test`: all tests, as two pytest processes side by side.

A test mostly waits, for daemons and periods of grace. Two halves together therefore take little
more time than the longer half. The first half prints at once, the second after the end of both.

No test checks objects of other tests, such as all mounts or processes of the machine. Tests that
share objects are in one half: all embedded hosts keep the addresses of their bridge in one
directory, so tests with bridges are in the first.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIRST = ("tests/containerd", "tests/acceptance")
"""Tests of the first half; the second half has all other tests, so each test is in a half."""


def commands() -> tuple[list[str], list[str]]:
    """Returns the two commands."""
    pytest = [sys.executable, "-m", "pytest"]
    return [*pytest, *FIRST], [*pytest, *(f"--ignore={place}" for place in FIRST)]


def run(first: Sequence[str], second: Sequence[str]) -> int:
    """Runs both commands to their ends and returns the first status that is not 0."""
    with tempfile.TemporaryFile() as said:
        ahead = subprocess.Popen(first, cwd=ROOT)
        beside = subprocess.Popen(
            second, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        # Ctrl-C reaches both processes, and each process ends its own children.
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: _interrupt(ahead, beside))
        statuses = ahead.wait(), beside.wait()
        said.seek(0)
        shutil.copyfileobj(said, sys.stdout.buffer)
        sys.stdout.flush()
    return next(filter(None, statuses), 0)


def _interrupt(*children: subprocess.Popen[bytes]) -> None:
    for child in children:
        child.send_signal(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(run(*commands()))
