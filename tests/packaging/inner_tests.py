"""Tests of this checkout, run inside an emulated machine by the Python of the machine."""

from __future__ import annotations

import base64
import gzip
import os
import subprocess
import sys
from pathlib import Path

from tests.matrix import REPORTS, Outcome
from tests.support.guests.guest import ROOT
from tests.support.guests.machine import Machine

_CHECKOUT = "/root/checkout"
_LOOK_S = 60
SLOWNESS = 10
"""Factor of all deadlines of tests on an emulated machine."""
_RUN = """\
cd {checkout}
export PYTHONPATH={checkout} SLOWNESS={slowness}
exec </dev/null 3>&1
exec >/root/{name}.log 2>&1
python3 -m pytest -p no:cacheprovider --hypothesis-profile=ci \
  --junitxml=/root/{name}.xml {arguments} 3>&- &
echo $! >&3
"""


def add_checkout(root: Path) -> None:
    """Copies the last commit into the root of a machine."""
    words = ["git", "clone", "-q", "--depth", "1", f"file://{ROOT}", f"{root}{_CHECKOUT}"]
    subprocess.run(words, check=True)


def run(machine: Machine, name: str, *arguments: str) -> Outcome:
    """Runs pytest to its end.

    The report goes to the directory in REPORTS too.

    Args:
        machine: a machine with `add_checkout`.
        name: name of the report.
        arguments: arguments of pytest.
    """
    script = _RUN.format(
        checkout=_CHECKOUT, name=name, slowness=SLOWNESS, arguments=" ".join(arguments)
    )
    pid = machine.shell(script)
    # The machine waits: each look of this process would cost the machine a new process.
    while machine.run(
        "timeout", str(_LOOK_S), "tail", f"--pid={pid}", "-f", "/dev/null"
    ).returncode:
        continue
    log = machine.shell(f"tail -n 300 /root/{name}.log")
    packed = machine.shell(f"gzip -c /root/{name}.xml | base64 -w 0")
    assert packed, log
    folder = Path(os.environ.get(REPORTS) or machine.work)
    report = folder / f"{name}.xml"
    report.write_bytes(gzip.decompress(base64.b64decode(packed)))
    outcome = Outcome(version="arm64", release=name)
    outcome.add(report)
    sys.stdout.write(log)
    return outcome
