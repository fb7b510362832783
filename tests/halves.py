"""`./dev test`: all tests, as two pytest processes side by side.

Most of a test's time is waiting, for daemons and for times of grace, so two halves together take
little more than the longer one. The first half's words come as it says them, the second's when both
have ended.

No test looks at what it did not make itself, such as all mounts or processes of the machine. What
tests of both halves would share has to be in one: all embedded hosts keep the addresses of their
bridge in one directory, so what makes bridges is in the first.
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
"""The first half's; the second has all others, so that no test is in neither."""


def commands() -> tuple[list[str], list[str]]:
    """What is to be run."""
    pytest = [sys.executable, "-m", "pytest"]
    return [*pytest, *FIRST], [*pytest, *(f"--ignore={place}" for place in FIRST)]


def run(first: Sequence[str], second: Sequence[str]) -> int:
    """Runs both to their ends and gives the first status that is not 0."""
    with tempfile.TemporaryFile() as said:
        ahead = subprocess.Popen(first, cwd=ROOT)
        beside = subprocess.Popen(
            second, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        # Ctrl-C reaches both by itself, and each ends what it has started.
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
