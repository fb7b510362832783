"""Tests of a log reader that comes after the task's end: the reader gets the rest, then one end."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fakes.shim import FakeTask
from tests.support.waiting import wait_until
from tests.support.workers.peers import LauncherProcess, LogReader, Peer, has_ended
from workers.protocol import ShimTarget

GROWN = {"log_patience_ms": 800, "log_buffer_bytes": 1 << 20}
LINES = b"".join(b"%d\n" % number for number in range(1, 40_001))  # 0.2 MB
MakeTask = Callable[[str], FakeTask]


@pytest.fixture
def make_task(launcher: LauncherProcess, request: pytest.FixtureRequest) -> Iterator[MakeTask]:
    """Makes the task of a fake shim and ends the task after the test."""
    made: list[FakeTask] = []

    def make(script: str) -> FakeTask:
        name = f"l{abs(hash(request.node.name)) % 10**8}"
        made.append(FakeTask(name, script, launcher.state_dir))
        return made[-1]

    yield make
    for task in made:
        task.remove()


def look_after(launcher: LauncherProcess, task: FakeTask, **more: object) -> Peer:
    """Opens the first connection of a worker of the task."""
    return launcher.worker(task.name, task.stdout, task.stderr, **more)


def started(worker: Peer, task: FakeTask) -> ShimTarget:
    target = task.create()
    assert worker.watch(target)["ok"] is True
    task.start()
    return target


def end(worker: Peer, **fields: object) -> None:
    assert worker.ask("end", **fields)["ok"] is True
    assert worker.receive() is None
    worker.socket.close()


def pid_of(worker: Peer) -> int:
    return int(str(worker.ask("hello")["pid"]))


def kill(worker: Peer) -> None:
    pid = pid_of(worker)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: has_ended(pid), 10)
    worker.socket.close()


def holds(pid: int, fifo: Path) -> bool:
    """Tells whether a process has an end of the FIFO open, and does not only name the FIFO."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if entry.readlink() == fifo:
                info = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
                flags = next(line for line in info.splitlines() if line.startswith("flags:"))
                if not int(flags.split()[1], 8) & os.O_PATH:
                    return True
    return False


def has_hung_up(reader: int) -> bool:
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


@pytest.mark.parametrize("text", ["", "one\n"], ids=["who reads nothing", "who has read all"])
def test_whom_the_worker_took_for_the_reader_may_go_and_the_next_one_gets_the_end(
    launcher: LauncherProcess, make_task: MakeTask, text: str
) -> None:
    """Covers a shim that closes the read end late, and a logmon killed at the same moment."""
    task = make_task(f"printf '{text}'; exit 3")
    worker = look_after(launcher, task)
    target = task.create()
    first = os.open(task.stdout, os.O_RDONLY | os.O_NONBLOCK)
    assert worker.watch(target)["ok"] is True
    task.start()
    assert worker.event("drained")["complete"] is True
    assert os.read(first, 100) == text.encode()
    pid = pid_of(worker)
    wait_until(lambda: not holds(pid, task.stdout), 10, "the worker does not let go")
    os.close(first)
    for _ in range(2):
        assert LogReader(task.stdout).finish() == b""
    end(worker)


def test_who_waits_for_the_end_of_a_log_gets_it_when_the_task_is_destroyed(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task("exit 3")
    worker = look_after(launcher, task)
    started(worker, task)
    worker.event("drained")
    late = os.open(task.stdout, os.O_RDONLY | os.O_NONBLOCK)
    end(worker, farewell=True)
    assert has_hung_up(late)
    os.close(late)


def test_a_worker_without_a_descriptor_gives_the_log_and_its_end_when_it_has_one(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task("echo one; sleep 0.2; exit 3")
    worker = look_after(launcher, task)
    started(worker, task)
    pid = pid_of(worker)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, before[1]))
    worker.event("drained")
    late = LogReader(task.stdout)
    assert not late.opened.wait(0.3)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert late.finish() == b"one\n"
    end(worker)


def test_a_worker_whose_task_has_not_ended_takes_no_reader_away_from_the_next(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    task = make_task("exit 3")
    worker = look_after(launcher, task)
    reader = os.open(task.stdout, os.O_RDONLY | os.O_NONBLOCK)
    end(worker, farewell=True)
    assert not has_hung_up(reader)
    os.close(reader)


@pytest.mark.parametrize("drops", [True, False], ids=["drop", "block"])
def test_after_an_end_in_a_grown_buffer_the_late_reader_gets_all_and_the_end(
    launcher: LauncherProcess, make_task: MakeTask, drops: bool
) -> None:
    task = make_task("seq 1 40000")
    worker = look_after(launcher, task, log_drops=drops, **GROWN)
    started(worker, task)
    worker.event("drained")
    assert LogReader(task.stdout).finish() == LINES
    assert LogReader(task.stderr).finish() == b""
    end(worker)


@pytest.mark.parametrize("drops", [True, False], ids=["drop", "block"])
def test_a_new_worker_gives_the_late_reader_all_and_the_end(
    launcher: LauncherProcess, make_task: MakeTask, tmp_path: Path, drops: bool
) -> None:
    task = make_task(f"seq 1 40000; echo >{tmp_path}/done; exec sleep 600")
    first = look_after(launcher, task, log_drops=drops, **GROWN)
    target = started(first, task)
    wait_until((tmp_path / "done").exists, 20, "the task waits for a reader")
    kill(first)
    second = look_after(launcher, task, log_drops=drops, **GROWN)
    assert second.watch(target)["ok"] is True
    second.ask("kill", signal=int(signal.SIGKILL))
    second.event("drained")
    assert LogReader(task.stdout).finish() == LINES
    end(second)


def test_when_a_task_ended_without_a_worker_the_late_reader_gets_the_end(
    launcher: LauncherProcess, make_task: MakeTask
) -> None:
    """Covers lost output: the kernel keeps content only while a process holds the FIFO."""
    task = make_task("echo lost; exec sleep 600")
    first = look_after(launcher, task)
    target = started(first, task)
    kill(first)
    os.killpg(task.pid, signal.SIGKILL)
    wait_until(lambda: not has_reader(task.stdout), 10, "the shim does not close")
    second = look_after(launcher, task)
    assert second.watch(target)["ok"] is True
    assert second.event("drained")["complete"] is True
    assert LogReader(task.stdout).finish() == b""
    end(second)


def has_reader(fifo: Path) -> bool:
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
