"""Installed runtimes which refuse every start are not offered; each is tried once."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from actors.health import runtime_programs
from actors.health.runtime_programs import RuntimeProgram, RuntimeWatch
from containerd import runtimes

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root tries runtimes")

_VERSION = 'if [ "$1" = --version ]; then echo "{name} version 1.1.5+ds1"; exit; fi\n'
WORKS = 'echo "exec: /containerd-driver-probe: no such file or directory" >&2; exit 127\n'
REFUSES = 'echo starting >&2; echo "cgroups in hybrid mode not supported" >&2; exit 1\n'
LOGS = """echo 'time="x" level=error msg="it \\"cannot\\" be"' >&2; exit 1\n"""


class Machine:
    """Programs in the place of the runtimes, which count their runs."""

    def __init__(self, home: Path) -> None:
        self.home = home / "run"
        self._programs = home / "bin"
        self._programs.mkdir()
        self.asked = home / "asked"

    def install(self, name: str, script: str) -> None:
        path = self._programs / name
        count = f'echo "{name} $3" >>{self.asked}\n'
        path.write_text("#!/bin/sh\n" + _VERSION.format(name=name) + count + script)
        path.chmod(0o755)

    def find(self, program: str) -> Path | None:
        path = self._programs / program
        return path if path.exists() else None

    def look(self) -> dict[str, str]:
        return {found.name: found.refusal for found in runtime_programs.probe(self.home)}

    def runs(self) -> int:
        return self.asked.read_text().count("\n") if self.asked.exists() else 0


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(runtimes, "program", made.find)
    monkeypatch.setattr(runtime_programs, "HOME", made.home)
    return made


def test_a_runtime_that_reaches_the_program_works(machine: Machine) -> None:
    machine.install("runc", WORKS)
    machine.install("crun", REFUSES)
    machine.install("runsc", LOGS)
    assert machine.look() == {
        "runc": "",
        "crun": "cgroups in hybrid mode not supported",
        "runsc": 'it "cannot" be',
    }
    (runc, *_) = runtime_programs.probe(machine.home)
    assert runc.version == "1.1.5+ds1"
    assert "CVE-2025-52881" in runc.holes
    assert sorted(entry.name for entry in machine.home.iterdir()) == ["runtimes.json"]


def test_a_program_is_tried_again_only_when_it_has_changed(machine: Machine) -> None:
    machine.install("crun", REFUSES)
    assert machine.look()["crun"]
    tried = machine.runs()
    assert machine.look()["crun"]
    assert machine.runs() == tried
    machine.install("crun", WORKS)
    assert machine.look() == {"crun": ""}
    (machine.home / "runtimes.json").write_text("damaged")
    assert machine.look() == {"crun": ""}
    assert machine.runs() > tried


def test_only_runtimes_that_work_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "available", lambda: runtimes.KNOWN)
    works = RuntimeProgram(name="runc", path="/runc", version="1")
    refuses = RuntimeProgram(name="crun", path="/crun", version="1", refusal="no")
    offered = runtime_programs.offered((works, refuses), "io.containerd.runc.v2")
    assert {"runc", "io.containerd.runc.v2", "kata"} <= set(offered)
    assert {"crun", "runsc", "io.containerd.runsc.v1"} & set(offered) == set()
    # The operator's choice is always offered: doctor reports the fault.
    assert "crun" in runtime_programs.offered((works, refuses), "crun")


async def test_who_watches_waits_for_no_runtime(machine: Machine) -> None:
    fifo = machine.home.parent / "go"
    os.mkfifo(fifo)
    gate = os.open(fifo, os.O_RDWR)
    machine.install("runc", f"read line <{fifo}\n{WORKS}")
    try:
        watch = RuntimeWatch()
        assert watch.programs() == ()
        await watch.pause(0.01)
        assert watch.programs() == ()
        # Each run of the program reads a line; eight lines are enough for all runs.
        os.write(gate, b"\n" * 8)
        await watch.pause(60)
        assert [found.name for found in watch.programs()] == ["runc"]
    finally:
        os.close(gate)


async def test_stored_results_are_read_without_a_probe(machine: Machine) -> None:
    machine.install("runc", WORKS)
    runtime_programs.probe()
    probed = machine.runs()
    watch = RuntimeWatch()
    await watch.read_stored()
    assert [found.name for found in watch.programs()] == ["runc"]
    await watch.pause(0)
    assert machine.runs() == probed


async def test_results_that_another_plugin_is_writing_are_not_waited_for(machine: Machine) -> None:
    machine.install("runc", WORKS)
    runtime_programs.probe()
    with (machine.home / "runtimes.json").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        watch = RuntimeWatch()
        await watch.read_stored()
        assert watch.programs() == ()
