"""Tests of a log reader that is killed, stopped, slow or absent, and of the effect on the task."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakes.shim import FakeTask
from tests.support.needs import need_root_here
from tests.support.waiting import wait_until
from tests.support.workers.log_process import LogProcess
from tests.support.workers.peers import LauncherProcess, Peer
from workers import protocol
from workers.logs import pipe

QUICK = {"log_patience_ms": 800, "log_buffer_bytes": 256 * 1024}
# On a loaded machine a reader has to wait now and then.
UNHURRIED_MS = 1500
LINES = 140_000
TEXT = b"".join(b"%d\n" % number for number in range(1, LINES + 1))  # 0.9 MB
HALF = TEXT.index(b"\n70000\n") + 7
WRITE_ALL = f"seq 1 {LINES}; echo >{{done}}; exec sleep 600"
AFTER_HALF = (
    f"until test -e {{go}}; do sleep 0.05; done;seq 70001 {LINES}; echo >{{done}}; exec sleep 600"
)
WRITE_HALVES = f"seq 1 70000; {AFTER_HALF}"


class Life:
    """A task with a worker and readers of stdout."""

    def __init__(self, launcher: LauncherProcess, name: str, directory: Path) -> None:
        self.launcher = launcher
        self.directory = directory
        self._name = name
        self.fifo = Path()
        self._more: dict[str, int] = {}
        self._task: FakeTask | None = None
        self._readers: list[LogProcess] = []

    def reader(self, **habits: float) -> LogProcess:
        """Starts a reader of stdout; all append to one file, like successive logmons."""
        size, pause_s = int(habits.get("size", 32768)), habits.get("pause_s", 0.0)
        file = self.directory / "log"
        self._readers.append(LogProcess(self.fifo, file, size=size, pause_s=pause_s))
        return self._readers[-1]

    def make(self, script: str, place: Path | None = None, **more: int) -> None:
        """Makes the task and the FIFOs, with nothing running."""
        place = place or self.launcher.state_dir
        script = script.format(done=self.directory / "done", go=self.directory / "go")
        self._task = FakeTask(self._name, script, place)
        self._more = QUICK | more
        self.fifo = self._task.stdout

    def start(self) -> Peer:
        """Opens the worker's first connection and starts the task."""
        assert self._task is not None
        worker = self.look_after()
        assert worker.watch(self._task.create())["ok"] is True
        self._task.start()
        return worker

    def look_after(self) -> Peer:
        """Starts a worker for the task."""
        assert self._task is not None
        return self.launcher.worker(
            self._task.name, self._task.stdout, self._task.stderr, **self._more
        )

    def wait_for(self, name: str) -> None:
        """Waits until the task has made the file."""
        wait_until((self.directory / name).exists, 30, "the task waits for its reader")

    def go(self) -> None:
        """Lets the task write the second half."""
        (self.directory / "go").touch()

    def room(self) -> int:
        """Returns the largest possible capacity of the FIFO."""
        with self._looked_at() as descriptor:
            return fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)

    def is_full(self) -> bool:
        """Tells whether the FIFO is full: the worker may be about to drop content."""
        with self._looked_at() as descriptor:
            return pipe.is_full(descriptor)

    @contextlib.contextmanager
    def _looked_at(self) -> Iterator[int]:
        descriptor = os.open(self.fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Ends the running processes."""
        for reader in self._readers:
            reader.end()
        if self._task is not None:
            self._task.remove()


@pytest.fixture
def life(
    request: pytest.FixtureRequest, launcher: LauncherProcess, tmp_path: Path
) -> Iterator[Life]:
    """Yields the life of a task, which ends with the test."""
    made = Life(launcher, f"t{abs(hash(request.node.name)) % 10**8}", tmp_path)
    yield made
    made.close()


def state_of(worker: Peer) -> tuple[str, int]:
    """Waits for the next state of stdout and returns the state with the dropped amount."""
    event = worker.event("log")
    assert event["stream"] == "stdout"
    return str(event["state"]), int(str(event["dropped"]))


def finish(worker: Peer) -> None:
    worker.ask("kill", signal=int(signal.SIGKILL))
    assert worker.event("drained")["complete"] is True
    worker.ask("end")
    worker.socket.close()


def lose_reader(life: Life, fate: str) -> tuple[Peer, LogProcess | None, int]:
    """Takes away the task's reader; returns the worker, a stopped reader, and the bytes read."""
    if fate == "never there":
        return life.start(), None, 0
    reader = life.reader()
    worker = life.start()
    wait_until(lambda: len(reader.data) == HALF, 20)
    if fate == "killed":
        reader.kill()
        return worker, None, HALF
    reader.stop()
    return worker, reader, HALF


def find_reader(life: Life, stopped: LogProcess | None) -> LogProcess:
    """Resumes the stopped reader, or starts a new reader."""
    if stopped is None:
        return life.reader()
    stopped.go_on()
    return stopped


@pytest.mark.parametrize("fate", ["killed", "stopped", "never there"])
def test_a_task_writes_on_without_a_reader_and_each_byte_waits_for_one(
    life: Life, fate: str
) -> None:
    life.make(WRITE_HALVES, log_buffer_bytes=1 << 20)
    worker, stopped, _ = lose_reader(life, fate)
    life.go()
    life.wait_for("done")
    assert state_of(worker) == ("stalled", 0)
    reader = find_reader(life, stopped)
    assert state_of(worker) == ("reading", 0)
    wait_until(lambda: reader.data == TEXT, 20, lambda: str(len(reader.data)))
    # Small again, since pipe memory counts against the limit of the user.
    wait_until(lambda: life.room() == pipe.USUAL_BYTES, 20)
    finish(worker)
    assert reader.finish() == TEXT


@pytest.mark.parametrize("fate", ["killed", "stopped", "never there"])
def test_beyond_the_limit_the_oldest_lines_are_dropped_and_the_task_writes_on(
    life: Life, fate: str
) -> None:
    life.make(WRITE_HALVES)
    worker, stopped, read = lose_reader(life, fate)
    life.go()
    life.wait_for("done")
    # A reader which reads during a drop has the gap at the position of the drop.
    wait_until(lambda: not life.is_full(), 20, "no room is made")
    reader = find_reader(life, stopped)
    states = [state_of(worker)]
    while states[-1][0] != "reading":
        states.append(state_of(worker))
    assert states[-2][0] == "dropping"
    dropped = states[-1][1]
    assert dropped > 0
    wait_until(lambda: reader.data.endswith(b"\n%d\n" % LINES), 20)
    assert reader.data == TEXT[:read] + TEXT[read + dropped :]
    assert TEXT[read + dropped - 1 : read + dropped] == b"\n", "a line was cut"
    assert len(reader.data) - read >= 100_000, "more was dropped than had to be"
    finish(worker)


def test_a_task_may_rather_wait_at_the_limit_and_goes_on_when_a_reader_comes(life: Life) -> None:
    life.make(WRITE_ALL, log_drops=False)
    worker = life.start()
    while (state := state_of(worker))[0] != "blocked":
        assert state == ("stalled", 0)
    assert not (life.directory / "done").exists()
    reader = life.reader()
    assert state_of(worker) == ("reading", 0)
    life.wait_for("done")
    wait_until(lambda: reader.data == TEXT, 20)
    finish(worker)


def test_a_new_worker_keeps_what_waits_for_a_reader(life: Life) -> None:
    life.make(WRITE_HALVES, log_buffer_bytes=1 << 20)
    worker = life.start()
    life.go()
    assert state_of(worker) == ("stalled", 0)
    os.kill(int(str(worker.ask("hello")["pid"])), signal.SIGKILL)
    assert worker.receive() is None
    worker.socket.close()
    assert life.room() > pipe.USUAL_BYTES
    with life.look_after() as second:
        assert state_of(second) == ("stalled", 0)
        life.wait_for("done")
        reader = life.reader()
        wait_until(lambda: reader.data == TEXT, 20)
        wait_until(lambda: life.room() == pipe.USUAL_BYTES, 20)
        second.ask("end")


def test_who_comes_later_is_told_what_was_dropped_meanwhile(life: Life) -> None:
    life.make(WRITE_ALL)
    worker = life.start()
    pid = worker.ask("hello")["pid"]
    worker.socket.close()
    life.wait_for("done")
    with life.launcher.control(life.fifo.name.partition(".")[0]) as later:
        assert later.ask("hello")["pid"] == pid
        assert state_of(later)[0] == "dropping"
        later.ask("hello")
        assert later.events == [], "it is told once to each"
    reader = life.reader()
    wait_until(lambda: reader.data.endswith(b"\n%d\n" % LINES), 20)
    wait_until(lambda: life.room() == pipe.USUAL_BYTES, 20)
    name = life.fifo.name.partition(".")[0]
    with life.launcher.control(name) as latest:
        latest.ask("hello")
        assert state_of(latest) == ("reading", len(TEXT) - len(reader.data))
        latest.ask("hello")
        assert latest.events == [], "good news is told once"
        latest.ask("kill", signal=int(signal.SIGKILL))
        latest.event("drained")
        latest.ask("end")


def test_a_plugin_that_was_away_for_two_stalls_is_told_what_both_have_dropped(life: Life) -> None:
    life.make(f"seq 1 70000; echo >{{go}}.half; {AFTER_HALF}", log_buffer_bytes=128 * 1024)
    worker = life.start()
    pid = int(str(worker.ask("hello")["pid"]))
    worker.socket.close()
    life.wait_for("go.half")
    reader = life.reader()
    wait_until(lambda: reader.data.endswith(b"\n70000\n"), 20)
    wait_until(lambda: life.room() == pipe.USUAL_BYTES, 20)
    first = HALF - len(reader.data)
    reader.stop()
    life.go()
    life.wait_for("done")
    reader.go_on()
    wait_until(lambda: reader.data.endswith(b"\n%d\n" % LINES), 20)
    wait_until(lambda: life.room() == pipe.USUAL_BYTES, 20)
    both = len(TEXT) - len(reader.data)
    assert both > first > 0
    name = life.fifo.name.partition(".")[0]
    # A peer that dies over a question has received nothing.
    os.kill(pid, signal.SIGSTOP)
    with life.launcher.control(name) as dying:
        dying.send({"id": 1, "op": "hello"})
    os.kill(pid, signal.SIGCONT)
    with life.launcher.control(name) as later:
        later.ask("hello")
        assert state_of(later) == ("reading", both)
        finish_early(later)


def test_a_reader_that_is_only_slow_gets_every_byte_and_the_fifo_does_not_grow(life: Life) -> None:
    life.make(WRITE_ALL, log_patience_ms=UNHURRIED_MS)
    reader = life.reader(size=4096, pause_s=0.02)
    worker = life.start()
    # Longer than the patience at the pace of the reader, with a FIFO that is full at every check.
    wait_until(lambda: len(reader.data) > 600_000, 60)
    assert life.room() == pipe.USUAL_BYTES
    worker.ask("hello")
    assert worker.events == []
    finish_early(worker)


@pytest.fixture
def timeless(tmp_path: Path) -> Iterator[Path]:
    """Yields a directory where the kernel keeps no access times."""
    need_root_here()
    place = tmp_path / "noatime"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noatime", "logs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_where_no_times_of_reading_are_kept_a_slow_reader_is_not_taken_for_dead(
    timeless: Path, life: Life
) -> None:
    life.make(WRITE_ALL, timeless, log_patience_ms=UNHURRIED_MS)
    reader = life.reader(size=4096, pause_s=0.02)
    worker = life.start()
    wait_until(lambda: len(reader.data) > 400_000, 60)
    worker.ask("hello")
    assert worker.events == []
    reader.stop()
    assert state_of(worker)[0] in {"stalled", "dropping"}
    life.wait_for("done")
    finish_early(worker)


def finish_early(worker: Peer) -> None:
    """Ends the task and the worker before the reader has read everything."""
    worker.ask("kill", signal=int(signal.SIGKILL))
    worker.event("drained")
    worker.ask("end")
    worker.socket.close()


def test_what_waits_for_room_when_a_task_ends_gets_it_at_once(life: Life) -> None:
    # A background process stands for the shim, which still has to copy content.
    life.make(f"seq 1 {LINES} & exit 3", log_buffer_bytes=1 << 20, log_patience_ms=60_000)
    worker = life.start()
    assert worker.event("exit")["code"] == 3
    assert worker.event("drained")["complete"] is True
    assert life.reader().finish() == TEXT
    worker.ask("end")
    worker.socket.close()


def test_a_worker_that_is_told_nothing_of_this_does_as_by_default(life: Life) -> None:
    life.make(WRITE_ALL)
    name = life.fifo.name.partition(".")[0]
    spec = {"name": name, "dir": str(life.launcher.task_dir(name)), "stdout": str(life.fifo)}
    peer, first = life.launcher.fork_with(spec)
    with peer:
        assert first["event"] == protocol.READY
        peer.ask("end")
