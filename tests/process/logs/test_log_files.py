"""Tests of a worker that collects a task's log: kills, rotations, a full disk, planted files."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.fakes.shim import FakeShim
from tests.support.kernel.scarce import SmallDisk
from tests.support.waiting import wait_until
from tests.support.workers.peers import LauncherProcess, Peer, has_ended
from workers import protocol
from workers.logs import pipe

KIB = 1024
LINES = 140_000
TEXT = b"".join(b"%d\n" % number for number in range(1, LINES + 1))  # 0.9 MB
WRITE_ALL = f"seq 1 {LINES}; echo >{{done}}; exec sleep 600"
SLOWLY = (
    "i=0; while test $i -lt 140; do seq $((i * 1000 + 1)) $((i * 1000 + 1000)); sleep 0.02;"
    " i=$((i + 1)); done; echo >{done}; exec sleep 600"
)


class Life:
    """A task whose log the worker collects, in small files."""

    def __init__(self, launcher: LauncherProcess, name: str, directory: Path) -> None:
        self.launcher = launcher
        self.name = name
        self.directory = directory
        self.logs = directory / "alloc" / "logs"
        self.logs.mkdir(parents=True)
        self.state = launcher.task_dir(name)
        self.worker: Peer | None = None
        self._shim: FakeShim | None = None
        self._held: list[int] = []

    def look_after(self, **more: object) -> Peer:
        """Starts a worker."""
        settings = {"log_type": protocol.FILES, "log_files": 1000, "log_file_bytes": 64 * KIB}
        self.worker = self.launcher.worker(
            self.name, self.logs / "web.stdout", self.logs / "web.stderr", **(settings | more)
        )
        return self.worker

    def start(self, script: str, **more: object) -> Peer:
        """Starts a worker, and a task; holds the FIFOs as the plugin does."""
        worker = self.look_after(**more)
        fifos = [self.state / name for name in (protocol.STDOUT_FIFO, protocol.STDERR_FIFO)]
        script = script.format(done=self.directory / "done", go=self.directory / "go")
        self._shim = FakeShim(
            self.name, script, self.directory / "sock", (str(fifos[0]), str(fifos[1]))
        )
        target = self._shim.create()
        relays = worker.ask("hello")["relays"]
        assert isinstance(relays, list)
        assert len(relays) == 2
        self._held = [os.open(path, os.O_RDONLY | os.O_NONBLOCK) for path in relays]
        assert worker.watch(target)["ok"] is True
        self._shim.start()
        return worker

    def replace(self, **more: object) -> Peer:
        """Kills the worker and starts another worker, which watches."""
        self.kill_worker()
        worker = self.look_after(**more)
        target = protocol.ShimTarget(
            address=f"unix://{self.directory / 'sock'}",
            api=2,
            namespace="fake",
            container_id=self.name,
        )
        assert worker.watch(target)["ok"] is True
        return worker

    def kill_worker(self) -> None:
        """Kills the worker at whatever the worker does."""
        assert self.worker is not None
        pid = int(str(self.worker.ask("hello")["pid"]))
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: has_ended(pid), 10)
        self.worker.socket.close()

    def end_task(self) -> None:
        """Kills the task's process."""
        assert self._shim is not None
        os.killpg(self._shim.pid, signal.SIGKILL)

    def data(self, stream: str = "stdout") -> bytes:
        """Returns the content of all files."""
        paths = sorted(
            self.logs.glob(f"web.{stream}.*"), key=lambda path: int(path.suffix.lstrip("."))
        )
        return b"".join(path.read_bytes() for path in paths)

    def has_grown(self, size: int) -> bool:
        """Returns whether the log is larger than a size, or complete."""
        return len(self.data()) > size or (self.directory / "done").exists()

    def wait_for(self, name: str) -> None:
        """Waits until the task has made the file."""
        wait_until((self.directory / name).exists, 30, "the task waits")

    def close(self) -> None:
        """Ends the running processes."""
        if self.worker is not None:
            self.worker.socket.close()
        for descriptor in self._held:
            os.close(descriptor)
        if self._shim is not None:
            self._shim.remove()


@pytest.fixture
def life(
    request: pytest.FixtureRequest, launcher: LauncherProcess, tmp_path: Path
) -> Iterator[Life]:
    """Yields the life of a task, which ends with the test."""
    made = Life(launcher, f"t{abs(hash(request.node.name)) % 10**8}", tmp_path)
    yield made
    made.close()


def finish(life: Life) -> None:
    assert life.worker is not None
    life.worker.ask("kill", signal=int(signal.SIGKILL))
    assert life.worker.event("drained")["complete"] is True
    life.worker.ask("end", farewell=True)
    life.worker.socket.close()


def test_both_streams_are_collected_in_files_that_end_with_a_line(life: Life) -> None:
    life.start(f"echo problem >&2; {WRITE_ALL}")
    life.wait_for("done")
    finish(life)
    assert life.data() == TEXT
    assert life.data("stderr") == b"problem\n"
    files = list(life.logs.glob("web.stdout.*"))
    assert len(files) >= len(TEXT) // (64 * KIB)
    assert all(file.read_bytes().endswith(b"\n") for file in files)
    assert not (life.state / "stdout").exists()


def test_the_last_line_of_a_task_that_ends_is_there_when_the_worker_reports(life: Life) -> None:
    worker = life.start(f"seq 1 {LINES}; printf end")
    assert worker.event("exit")["code"] == 0
    assert worker.event("drained")["complete"] is True
    assert life.data() == TEXT + b"end"
    worker.ask("end", farewell=True)


@pytest.mark.parametrize("script", [SLOWLY, WRITE_ALL])
def test_killed_workers_lose_and_double_no_byte(life: Life, script: str) -> None:
    life.start(script)
    chance = random.Random(1)
    for _ in range(12):
        seen = len(life.data())
        # A kill amid the writing of lines, and of the end of a file.
        wait_until(partial(life.has_grown, seen + chance.randrange(40 * KIB)), 20)
        life.replace()
    life.wait_for("done")
    finish(life)
    assert life.data() == TEXT
    files = list(life.logs.glob("web.stdout.*"))
    assert all(file.read_bytes().endswith(b"\n") for file in files)


def test_what_a_task_writes_and_ends_with_while_no_worker_runs_is_kept(life: Life) -> None:
    life.start("until test -e {go}; do sleep 0.05; done; seq 1 5000; exit 3")
    life.kill_worker()
    (life.directory / "go").touch()
    held = life.state / protocol.STDOUT_FIFO
    last = b"5000\n"

    def is_written() -> bool:
        descriptor = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return pipe.unread(descriptor) == TEXT.index(b"\n5000\n") + 6
        finally:
            os.close(descriptor)

    wait_until(is_written, 20)
    worker = life.look_after()
    target = protocol.ShimTarget(
        address=f"unix://{life.directory / 'sock'}", api=2, namespace="fake", container_id=life.name
    )
    assert worker.watch(target)["ok"] is True
    assert worker.event("exit")["code"] == 3
    assert worker.event("drained")["complete"] is True
    assert life.data() == TEXT[: TEXT.index(b"\n5000\n") + 6]
    assert life.data().endswith(last)
    # A worker after the exit record writes no more, and reports all as written.
    life.kill_worker()
    assert life.look_after().ask("hello")["drained"] is True
    assert len(life.data()) == TEXT.index(b"\n5000\n") + 6


def test_a_task_without_output_has_two_empty_files(life: Life) -> None:
    life.start("exec sleep 600")
    assert sorted(path.name for path in life.logs.iterdir()) == ["web.stderr.0", "web.stdout.0"]
    finish(life)
    assert life.data() == b""


def test_a_stream_that_nobody_collects_has_no_file(life: Life) -> None:
    life.worker = worker = life.launcher.worker(
        life.name, os.devnull, life.logs / "web.stderr", log_type=protocol.FILES
    )
    assert [path.name for path in life.logs.iterdir()] == ["web.stderr.0"]
    worker.ask("end")
    worker.socket.close()


def capacity(life: Life) -> int:
    """Returns the capacity of the FIFO of stdout."""
    fifo = os.open(life.state / protocol.STDOUT_FIFO, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return pipe.capacity(fifo)
    finally:
        os.close(fifo)


# Large writes, until `go`.
BUSY = (
    "until test -e {go}; do dd if=/dev/zero bs=64k count=8; sleep 0.1; done; echo >{done};"
    " exec sleep 600"
)


@pytest.mark.parametrize(
    ("buffer", "busy"), [(16 * 1024, 256), (64, 64)], ids=["usual-buffer", "small-buffer"]
)
def test_the_fifo_is_larger_while_a_task_is_busy_within_the_limit_of_the_buffer(
    life: Life, buffer: int, busy: int
) -> None:
    life.start(BUSY, log_buffer_bytes=buffer * KIB)
    wait_until(lambda: len(life.data()) > 1 << 20 and capacity(life) == busy * KIB, 20)
    (life.directory / "go").touch()
    life.wait_for("done")
    wait_until(lambda: capacity(life) == pipe.USUAL_BYTES, 20, "the FIFO stays large")
    finish(life)
    assert len(life.data()) % (512 * KIB) == 0


def test_the_next_worker_shrinks_the_fifo_of_a_quiet_task(life: Life) -> None:
    life.start("echo line; exec sleep 600")
    wait_until(lambda: life.data() == b"line\n", 20)
    fifo = os.open(life.state / protocol.STDOUT_FIFO, os.O_RDONLY | os.O_NONBLOCK)
    assert pipe.resize(fifo, 256 * KIB)
    os.close(fifo)
    life.replace()
    wait_until(lambda: capacity(life) == pipe.USUAL_BYTES, 20, "the FIFO stays large")
    finish(life)


@pytest.fixture
def disk(life: Life) -> Iterator[SmallDisk]:
    """Yields a small disk below the files of the task."""
    small = SmallDisk(life.logs)
    yield small
    small.close()


def states_until(worker: Peer, state: str) -> list[tuple[str, int, str]]:
    """Returns state, dropped bytes and problem of each report, up to a state."""
    seen: list[tuple[str, int, str]] = []
    while not seen or seen[-1][0] != state:
        event = worker.event("log")
        assert event["stream"] == "stdout"
        seen.append((str(event["state"]), int(str(event["dropped"])), str(event["problem"])))
    return seen


def test_a_full_disk_drops_the_oldest_lines_counts_them_and_reports_once(
    life: Life, disk: SmallDisk
) -> None:
    quick = {"log_patience_ms": 400, "log_buffer_bytes": 128 * KIB}
    script = (
        "seq 1 70000; echo >{go}.half; until test -e {go}; do sleep 0.05; done;"
        f"seq 70001 {LINES}; echo >{{done}}; exec sleep 600"
    )
    worker = life.start(script, **quick)
    half = TEXT.index(b"\n70000\n") + 7
    wait_until(lambda: len(life.data()) == half, 20)
    disk.fill()
    (life.directory / "go").touch()
    life.wait_for("done")  # the task does not wait for the disk
    problem = "No space left on device"
    before = states_until(worker, "dropping")
    assert [state for state, _, _ in before] in (["stalled", "dropping"], ["dropping"])
    assert before[-1][2] == problem
    disk.free()
    ((state, dropped, _),) = states_until(worker, "reading")
    assert (state, dropped > 0) == ("reading", True)
    wait_until(lambda: life.data().endswith(b"\n%d\n" % LINES), 20)
    data = life.data()
    # The end of the disk may have cut a line; the gap begins there and ends with a line.
    kept = next(place for place, byte in enumerate(data) if byte != TEXT[place])
    assert len(data) == len(TEXT) - dropped
    assert data[kept:] == TEXT[kept + dropped :]
    worker.ask("hello")
    assert not [event for event in worker.events if event["event"] == "log"]
    finish(life)


def test_with_block_a_full_disk_makes_the_task_wait_and_no_byte_is_lost(
    life: Life, disk: SmallDisk
) -> None:
    quick = {"log_patience_ms": 400, "log_buffer_bytes": 64 * KIB, "log_drops": False}
    disk.fill()
    worker = life.start(WRITE_ALL, **quick)
    assert states_until(worker, "blocked")[-1][2] == "No space left on device"
    assert not (life.directory / "done").exists()
    disk.free()
    assert states_until(worker, "reading")[-1][1] == 0
    wait_until(lambda: life.data() == TEXT, 20)
    finish(life)


def test_a_worker_killed_on_a_full_disk_loses_no_byte(life: Life, disk: SmallDisk) -> None:
    disk.fill()
    life.start(WRITE_ALL, log_drops=False)
    life.replace(log_drops=False)
    disk.free()
    wait_until(lambda: life.data() == TEXT, 20)
    finish(life)


def test_a_task_that_ends_on_a_full_disk_keeps_the_rest_until_its_removal(
    life: Life, disk: SmallDisk
) -> None:
    disk.fill()
    worker = life.start("seq 1 5000; exit 4", log_patience_ms=400)
    assert worker.event("exit")["code"] == 4
    assert worker.event("drained")["complete"] is False
    assert life.data() == b""
    disk.free()
    worker.ask("end", farewell=True)
    worker.socket.close()
    assert life.data() == TEXT[: TEXT.index(b"\n5000\n") + 6]
