"""Tests of `containerd-driver run` without disk space for output, record or allocations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes.scripted_plugin import make_scripted_plugin
from tests.support.kernel.scarce import SmallDisk
from tests.support.plugin.plugin_dir import ROOT
from tests.support.waiting import slowed, wait_until

DEADLINE_S = 30.0
TOLD = "No space left on device: output waits for space (make room there"


class Host:
    """Runner of a job with one scripted task, next to a small disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "small").mkdir()
        self.disk = SmallDisk(directory / "small")
        self._program = make_scripted_plugin(directory)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, steps: tuple[str, ...], out: Path, err: Path, *words: str, **more: Any) -> None:
        """Starts the run; steps are the task's script."""
        task = {"Name": "t", "Driver": "containerd-driver", "Config": {"image": "i"}, **more}
        task["Config"]["args"] = list(steps)
        job = self.directory / "job.json"
        job.write_text(json.dumps({"ID": "j", "TaskGroups": [{"Name": "g", "Tasks": [task]}]}))
        with out.open("ab") as stdout, err.open("ab") as stderr:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-I", str(ROOT / "plugin" / "main.py"), "run", str(job)),
                    *("--plugin", str(self._program), "--config", f"state_dir={self.directory}"),
                    *("--alloc-dir", str(self.directory / "allocs"), *words),
                ],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    def ended(self) -> int:
        """Waits for the end and returns the exit status."""
        assert self.process is not None
        return self.process.wait(slowed(DEADLINE_S))

    def journal(self) -> list[str]:
        """Returns the calls that the plugin received."""
        journal = self.directory / "journal"
        return journal.read_text().splitlines() if journal.exists() else []

    def close(self) -> None:
        """Ends processes left by a failed test."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(slowed(DEADLINE_S))
        self.disk.close()


@pytest.fixture
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="cdh-") as directory:
        made = Host(Path(directory))
        yield made
        made.close()


@pytest.mark.parametrize("words", [(), ("--json",)], ids=["plain", "json"])
def test_what_a_task_says_waits_for_room_on_a_full_disk_and_the_task_goes_on(
    host: Host, words: tuple[str, ...]
) -> None:
    out, err = host.disk.directory / "out", host.directory / "err"
    out.touch()
    host.disk.fill()
    host.start(("out one\\n", "out two\\n", "out three\\n", "wait"), out, err, *words)
    wait_until(lambda: TOLD in err.read_text(), DEADLINE_S, err.read_text)
    assert out.read_text() == ""
    host.disk.free()
    wait_until(lambda: "three" in out.read_text(), DEADLINE_S, out.read_text)
    assert "destroy t" not in host.journal()
    assert host.process is not None
    os.killpg(host.process.pid, signal.SIGINT)
    host.ended()
    assert err.read_text().count(f"error: stdout: {TOLD}") == 1
    said = out.read_text().splitlines()
    if words:
        lines = [json.loads(line) for line in said if line.startswith("{")]
        assert [line["line"] for line in lines if line["kind"] == "log"] == ["one", "two", "three"]
    else:
        assert [line for line in said if line in {"one", "two", "three"}] == ["one", "two", "three"]


def test_a_run_that_could_not_say_all_does_not_end_well(host: Host) -> None:
    out = host.directory / "out"
    host.start(("out hello\\n", "exit 0"), out, Path("/dev/full"))
    assert host.ended() == 125
    assert out.read_text() == "hello\n"
    assert host.journal() == ["start t", "destroy t"]


@pytest.mark.parametrize("place", ["allocations", "record", "template"])
def test_a_run_that_finds_no_room_says_where_and_leaves_nothing(host: Host, place: str) -> None:
    small, err = host.disk.directory, host.directory / "err"
    allocs = small if place != "record" else host.directory / "allocs"
    template = {"EmbeddedTmpl": "x" * 65536, "DestPath": "local/big"}
    words = ["--alloc-dir", str(allocs)]
    if place == "record":
        (small / "live").mkdir(mode=0o700)
        words += ["--config", f"state_dir={small}"]
    if place == "allocations":
        host.disk.fill_inodes()
    else:
        host.disk.fill()
    host.start(
        ("exit 0",),
        host.directory / "out",
        err,
        *words,
        Templates=[template] * (place == "template"),
    )
    assert host.ended() == 125
    said = err.read_text()
    assert "No space left on device" in said
    assert str(small) in said
    assert "make room" in said
    assert "Traceback" not in said
    assert host.journal() == []
    host.disk.free()
    assert [entry for entry in small.rglob("*") if entry.name != "live"] == []
