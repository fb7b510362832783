"""Tests of the begin of `containerd-driver run`: its plugin starts, then the dev host is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.plugin.plugin_dir import ROOT
from tests.support.waiting import slowed

DEADLINE_S = 60.0


def children(run: int) -> list[str]:
    """Returns the pids of the processes that a run has started as plugins."""
    mark = f"CONTAINERD_DRIVER_HOST={run}\0".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's run starts no plugin")
@pytest.mark.parametrize(
    ("words", "status", "error"),
    [((), 125, "job.nomad:3: not HCL"), (("--config", "state_dir=relative"), 2, "state_dir")],
)
def test_a_run_that_is_refused_ends_its_plugin(
    tmp_path: Path, words: tuple[str, ...], status: int, error: str
) -> None:
    job = tmp_path / "job.nomad"
    job.write_text('job "j" {\n')
    place = tmp_path / "tmp"
    place.mkdir()
    run = subprocess.Popen(
        [sys.executable, "-I", str(ROOT / "plugin/main.py"), "run", str(job), *words],
        env={"PATH": os.defpath, "TMPDIR": str(place)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _, said = run.communicate(timeout=slowed(DEADLINE_S))
    assert children(run.pid) == []
    assert (run.returncode, list(place.iterdir())) == (status, [])
    assert said.startswith("error: ")
    assert error in said


@pytest.mark.parametrize("command", ["run", "spec", "convert", "doctor", "gc"])
def test_help_loads_no_command(command: str) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-I", "-X", "importtime", str(ROOT / "plugin/main.py")),
            *(command, "--help"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=slowed(DEADLINE_S),
    )
    assert done.returncode == 0
    assert f"usage: containerd-driver {command} " in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "plugin.cli.arguments" in loaded
    assert not {"asyncio", "google.protobuf", "grpc", f"plugin.cli.{command}"} & loaded
    # argparse itself loads dataclasses from Python 3.14, for the colours of the help.
    assert sys.version_info >= (3, 14) or "dataclasses" not in loaded
