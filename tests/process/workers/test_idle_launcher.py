"""Tests of a launcher without systemd, which ends when no process needs the launcher any more."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.model.ownership import PLUGIN, RUN
from actors.orphans.peers import Presence
from actors.processes import idle_launcher
from tests.support.waiting import slowed
from tests.support.workers.peers import LauncherProcess
from workers import liveness, protocol

SOON = ("--idle-ms", "100")
END_S = 20.0


@pytest.fixture
def launcher() -> Iterator[LauncherProcess]:
    with LauncherProcess() as running:
        yield running


def impatient(launcher: LauncherProcess) -> subprocess.Popen[bytes]:
    """Starts the launcher's successor, which waits a moment instead of minutes."""
    launcher.process.kill()
    launcher.process.wait(slowed(END_S))
    launcher.process = launcher.spawn(*SOON)
    launcher.wait_ready()
    return launcher.process


def is_unused(place: Path) -> bool:
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return liveness.is_unused(directory)
    finally:
        os.close(directory)


@pytest.mark.parametrize("kind", [PLUGIN, RUN])
def test_it_ends_after_the_last_plugin_or_run(launcher: LauncherProcess, kind: str) -> None:
    living = Presence(launcher.state_dir, kind)
    process = impatient(launcher)
    assert process.poll() is None
    assert idle_launcher.pid(launcher.state_dir) is None
    living.close()
    assert process.wait(slowed(END_S)) == 0
    assert not (launcher.state_dir / protocol.LAUNCHER_SOCKET).exists()
    assert "no plugin, run or task is alive" in launcher.log.read_text()


def test_it_ends_after_the_last_worker(launcher: LauncherProcess) -> None:
    living = Presence(launcher.state_dir, PLUGIN)
    process = impatient(launcher)
    directory = launcher.task_dir("tasks") / "t"
    directory.mkdir(mode=0o700)
    worker, ready = launcher.fork_with({"name": "t", "dir": str(directory)})
    assert ready["event"] == protocol.READY
    living.close()
    with worker:
        assert not is_unused(launcher.state_dir)
        assert process.poll() is None
        assert worker.ask("end")["ok"] is True
    assert process.wait(slowed(END_S)) == 0


def test_gc_knows_one_that_has_nothing_to_do(launcher: LauncherProcess) -> None:
    assert idle_launcher.pid(launcher.state_dir) == launcher.process.pid
    living = Presence(launcher.state_dir, RUN)
    assert idle_launcher.pid(launcher.state_dir) is None
    living.withdraw()
    launcher.process.send_signal(signal.SIGKILL)
    launcher.process.wait(slowed(END_S))
    assert idle_launcher.pid(launcher.state_dir) is None
    assert idle_launcher.pid(launcher.state_dir / "none") is None


def test_one_that_systemd_runs_stays_and_is_none_of_gcs(
    launcher: LauncherProcess, tmp_path: Path
) -> None:
    before = launcher.process
    launcher.process = launcher.spawn(*SOON, "--notify", str(tmp_path / "notify"))
    before.wait(slowed(END_S))
    launcher.wait_ready()
    assert idle_launcher.pid(launcher.state_dir) is None
    assert is_unused(launcher.state_dir)


def test_a_file_without_its_owner_is_nobody(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    (tmp_path / "tasks" / "t").mkdir(parents=True)
    (tmp_path / "tasks" / "empty").mkdir()
    (tmp_path / "tasks" / "file").touch()
    (tmp_path / "live" / "plugin-1").touch()
    lock = tmp_path / "tasks" / "t" / protocol.WORKER_LOCK
    lock.touch()
    assert is_unused(tmp_path)
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not is_unused(tmp_path)
    assert is_unused(tmp_path)
