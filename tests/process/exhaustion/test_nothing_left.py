"""Tests of launcher and workers without disk, descriptors or processes: clear, brief errors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proto.errors import Code, DriverError
from proto.frames import Frame
from tests.support.fakes.shim import FakeTask
from tests.support.kernel.scarce import SmallDisk, no_descriptors, no_forks
from tests.support.waiting import wait_until
from tests.support.workers.peers import ROOT, LauncherProcess, Peer
from workers import exit_record, protocol


@pytest.fixture(scope="module")
def disk() -> Iterator[SmallDisk]:
    """Mounts a small file system for the state directory."""
    place = SmallDisk(Path(tempfile.mkdtemp(prefix="cdw-")))
    yield place
    place.close()
    place.directory.rmdir()


@pytest.fixture(scope="module")
def running(disk: SmallDisk) -> Iterator[LauncherProcess]:
    """Yields one launcher for all tests of the module."""
    (disk.directory / "state").mkdir(mode=0o700)
    with LauncherProcess(state_dir=disk.directory / "state") as launcher:
        yield launcher


@pytest.fixture
def launcher(running: LauncherProcess, disk: SmallDisk) -> Iterator[LauncherProcess]:
    """Yields the launcher and checks that the launcher survived the test."""
    yield running
    disk.free()
    assert running.process.poll() is None
    with running.worker("after") as peer:
        finish(peer)


@pytest.fixture
def make_task(launcher: LauncherProcess) -> Iterator[Callable[[str, str], FakeTask]]:
    """Makes the task of a fake shim and ends the task after the test."""
    made: list[FakeTask] = []
    place = Path(tempfile.mkdtemp(prefix="cdw-"))  # not on the full disk

    def make(name: str, script: str) -> FakeTask:
        made.append(FakeTask(name, script, place))
        return made[-1]

    yield make
    for task in made:
        task.remove()
    shutil.rmtree(place)


def finish(worker: Peer) -> None:
    assert worker.ask("end")["ok"] is True
    assert worker.receive() is None
    worker.socket.close()


def error_of(frame: Frame | None) -> DriverError:
    assert frame is not None
    error = frame["error"]
    assert isinstance(error, dict)
    return DriverError.from_wire(error)


def start(worker: Peer, task: FakeTask) -> None:
    assert worker.watch(task.create())["ok"] is True
    task.start()


# --- disk


def test_a_full_state_directory_does_not_keep_an_exit_from_its_record(
    launcher: LauncherProcess, disk: SmallDisk, make_task: Callable[..., FakeTask]
) -> None:
    task = make_task("full", "kill -9 $$")
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    assert worker.watch(task.create())["ok"] is True
    disk.fill()
    task.start()
    assert worker.event("exit")["code"] == 137
    recorded = exit_record.read_exit(str(launcher.task_dir(task.name)))
    assert recorded is not None
    assert recorded.code == 137
    finish(worker)


def test_a_worker_for_which_there_is_no_room_is_refused_and_leaves_nothing(
    launcher: LauncherProcess, disk: SmallDisk
) -> None:
    before = set(launcher.worker_pids())
    launcher.task_dir("late")
    disk.fill()
    peer, first = launcher.fork("late")
    error = error_of(first)
    assert error.code is Code.EXHAUSTED
    assert error.recoverable
    assert "late" in str(error)
    assert "No space left on device" in str(error)
    assert "make room" in error.resolution
    peer.socket.close()
    wait_until(lambda: set(launcher.worker_pids()) == before, 10, "a worker is left")
    disk.free()
    with launcher.worker("late") as worker:
        finish(worker)


def test_a_worker_whose_records_place_was_taken_writes_it_when_there_is_room(
    launcher: LauncherProcess, disk: SmallDisk, make_task: Callable[..., FakeTask]
) -> None:
    task = make_task("taken", "exit 4")
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    assert worker.watch(task.create())["ok"] is True
    directory = launcher.task_dir(task.name)
    (directory / "exit.new").unlink()
    disk.fill()
    task.start()
    assert worker.event("exit")["code"] == 4
    assert worker.ask("hello")["exit"]
    disk.free()
    recorded = wait_until(lambda: exit_record.read_exit(str(directory)), 20, "no record")
    assert recorded.code == 4
    finish(worker)


# --- descriptors


def test_a_launcher_without_descriptors_says_so_and_forks_again_when_it_has_some(
    launcher: LauncherProcess,
) -> None:
    with no_descriptors(launcher.process.pid):
        for _ in range(3):
            peer, first = launcher.fork("poor")
            error = error_of(first)
            assert error.code is Code.EXHAUSTED
            assert "can take no more connections: Too many open files" in str(error)
            assert "LimitNOFILE" in str(error)
            peer.socket.close()


@pytest.mark.parametrize("left", range(1, 9))
def test_a_worker_that_is_short_of_descriptors_is_refused_by_name(
    launcher: LauncherProcess, left: int, tmp_path: Path
) -> None:
    fifo = tmp_path / "log.fifo"
    os.mkfifo(fifo)
    before = set(launcher.worker_pids())
    with no_descriptors(launcher.process.pid, left):
        peer, first = launcher.fork("short", fifo)
    if first.get("event") == protocol.READY:
        finish(peer)
        return
    error = error_of(first)
    assert error.code is Code.EXHAUSTED, str(error)
    assert "Too many open files" in str(error)
    assert "LimitNOFILE" in str(error)
    peer.socket.close()
    wait_until(lambda: set(launcher.worker_pids()) == before, 10, "a worker is left")


def test_a_worker_without_descriptors_turns_peers_away_and_keeps_the_exit(
    launcher: LauncherProcess, make_task: Callable[..., FakeTask]
) -> None:
    task = make_task("closed", "exit 6")
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    pid = worker.ask("hello")["pid"]
    assert isinstance(pid, int)
    assert worker.watch(task.create())["ok"] is True
    with no_descriptors(pid):
        with launcher.control(task.name) as peer:
            assert error_of(peer.receive()).code is Code.EXHAUSTED
            assert peer.receive() is None
        task.start()
        assert worker.event("exit")["code"] == 6
        recorded = exit_record.read_exit(str(launcher.task_dir(task.name)))
        assert recorded is not None
        assert recorded.code == 6
    with launcher.control(task.name) as peer:
        assert peer.ask("hello")["ok"] is True
    finish(worker)


def test_a_worker_without_descriptors_watches_a_task_and_loses_no_exit(
    launcher: LauncherProcess, make_task: Callable[..., FakeTask]
) -> None:
    task = make_task("blind", "exit 7")
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    pid = worker.ask("hello")["pid"]
    assert isinstance(pid, int)
    target = task.create()
    with no_descriptors(pid):
        error = error_of(worker.watch(target))
        assert error.code is Code.EXHAUSTED
        assert "Too many open files" in str(error)
    with no_descriptors(pid, 2):
        assert worker.watch(target)["ok"] is True  # without pidfd and readings
        task.start()
        assert worker.event("exit")["code"] == 7
    finish(worker)


# --- processes


def test_a_launcher_that_may_not_fork_says_so_and_forks_again_when_it_may(
    launcher: LauncherProcess,
) -> None:
    with no_forks(launcher.process.pid):
        peer, first = launcher.fork("lonely")
        error = error_of(first)
        assert error.code is Code.EXHAUSTED
        assert error.recoverable
        assert "the launcher cannot fork a worker: Resource temporarily unavailable" in str(error)
        assert "TasksMax" in str(error)
        peer.socket.close()


# --- open files of the whole machine: a test cannot have a separate limit

_NONE_LEFT = """\
import errno, os, sys, time
sys.path.insert(0, sys.argv[1])
from workers import control
from workers.logs import pipe

def none(*_, **__):
    raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

class Listener:
    _accept = none

waits = []
os.open, time.sleep = none, waits.append
for _ in range(3):
    assert control.accept(Listener()) is None
assert len(waits) == 3, "a listener that stays ready is a loop that spins"
assert os.fstat(0).st_ino == os.fstat(1).st_ino, "standard input is somebody else's"
assert pipe.discard(0, 1) == 0
"""


def test_a_machine_without_open_files_ends_no_worker_and_makes_none_spin() -> None:
    subprocess.run(
        [sys.executable, "-I", "-c", _NONE_LEFT, str(ROOT)],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
