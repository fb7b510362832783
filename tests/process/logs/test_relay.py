"""Tests of a worker that relays a task's logs: from the FIFOs of a shim to Nomad's FIFOs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fakes.shim import FakeTask
from tests.support.waiting import slowed, wait_until
from tests.support.workers.peers import LauncherProcess, LogReader, Peer, has_ended
from workers import protocol
from workers.logs import pipe
from workers.logs.relay import CAPACITY_BYTES
from workers.protocol import WorkerSpec
from workers.shim import ttrpc

LINES = "i=0; while test $i -lt {count}; do i=$((i+1)); echo line $i; done"


class Relayed:
    """A task that runs behind the shim's FIFOs, with two more FIFOs in place of Nomad's."""

    def __init__(self, launcher: LauncherProcess, name: str, script: str) -> None:
        self.launcher = launcher
        self.task = FakeTask(name, script, launcher.state_dir)
        self.stdout = launcher.state_dir / f"{name}.nomad.stdout"
        self.stderr = launcher.state_dir / f"{name}.nomad.stderr"
        os.mkfifo(self.stdout)
        os.mkfifo(self.stderr)
        readers = [
            os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            for path in (self.task.stdout, self.task.stderr)
        ]
        self._target = self.task.create()
        for reader in readers:  # the plugin with these readers has ended
            os.close(reader)

    def spec(self, **changes: object) -> dict[str, object]:
        """Builds the worker's description of the task."""
        spec = WorkerSpec(
            name=self.task.name,
            dir=str(self.launcher.task_dir(self.task.name)),
            stdout=str(self.stdout),
            stderr=str(self.stderr),
            stdout_source=str(self.task.stdout),
            stderr_source=str(self.task.stderr),
        )
        return spec.to_wire() | changes

    def look_after(self, **changes: object) -> Peer:
        """Starts a worker that relays and watches."""
        peer, first = self.launcher.fork_with(self.spec(**changes))
        assert first.get("event") == protocol.READY, first
        relays = first["relays"]
        assert isinstance(relays, list)
        assert len(relays) == 2
        assert peer.watch(self._target)["ok"] is True
        return peer


Make = Callable[[str], Relayed]


@pytest.fixture
def relayed(launcher: LauncherProcess, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes such tasks; ends them."""
    made: list[Relayed] = []

    def make(script: str) -> Relayed:
        name = f"r{abs(hash(request.node.name)) % 10**8}"
        made.append(Relayed(launcher, name, script))
        return made[-1]

    yield make
    for one in made:
        one.task.remove()


def numbered(count: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(1, count + 1))


def finish(worker: Peer) -> None:
    assert worker.ask("end")["ok"] is True
    assert worker.receive() is None
    worker.socket.close()


def test_both_logs_come_whole_and_end_with_the_task(relayed: Make) -> None:
    made = relayed(LINES.format(count=20000) + "; echo oops >&2; exit 3")
    out, err = LogReader(made.stdout), LogReader(made.stderr)
    worker = made.look_after()
    made.task.start()
    assert worker.event("exit")["code"] == 3
    assert worker.event("drained")["complete"] is True
    assert (out.finish(), err.finish()) == (numbered(20000), b"oops\n")
    finish(worker)


def test_a_worker_killed_again_and_again_loses_and_repeats_nothing(
    relayed: Make,
) -> None:
    made = relayed(LINES.format(count=60000))
    # As the plugin holds them.
    held = os.open(made.stdout, os.O_RDWR), os.open(made.task.stdout, os.O_RDONLY)
    out = LogReader(made.stdout)
    worker = made.look_after()
    made.task.start()
    for size in range(50_000, 500_000, 50_000):
        wait_until(lambda size=size: len(out.data) >= size, 20)  # type: ignore[misc]
        pid = int(str(worker.ask("hello")["pid"]))
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: has_ended(pid), 10)  # type: ignore[misc]
        worker.socket.close()
        worker = made.look_after()
    worker.event("exit")
    for descriptor in held:
        os.close(descriptor)
    assert out.finish() == numbered(60000)
    finish(worker)


def test_while_nobody_reads_more_than_a_fifo_full_is_kept_and_the_task_goes_on(
    relayed: Make,
) -> None:
    """Covers single lines: each takes a page of Nomad's FIFO; the shim's FIFO has room for more."""
    count = CAPACITY_BYTES // 12
    made = relayed(LINES.format(count=count))
    worker = made.look_after()
    made.task.start()
    worker.event("exit")
    out = LogReader(made.stdout)
    assert out.finish() == numbered(count)
    finish(worker)


def test_a_worker_with_a_full_fifo_sleeps(relayed: Make) -> None:
    made = relayed("while :; do echo a line of some length to fill it soon; done")
    worker = made.look_after()
    made.task.start()
    pid = worker.ask("hello")["pid"]
    status = Path(f"/proc/{pid}/status")
    unblocked = LogReader(made.stderr)
    seen = [""]

    def same_as_before() -> bool:
        before, seen[0] = seen[0], switches(status)
        unblocked.eof.wait(0.5)
        return before == seen[0]

    wait_until(same_as_before, 20, "the worker does not come to rest")
    out = LogReader(made.stdout)
    wait_until(lambda: len(out.data) > 4 * CAPACITY_BYTES, 20, "the log does not go on")
    worker.ask("kill", signal=int(signal.SIGKILL))
    worker.event("drained")
    finish(worker)


def test_a_full_fifo_at_the_end_of_a_log_lets_the_worker_sleep_and_the_reader_find_its_end(
    relayed: Make,
) -> None:
    """Covers as many single lines as the FIFO has pages: the last line takes the last room."""
    pages = pipe.USUAL_BYTES // os.sysconf("SC_PAGE_SIZE")
    made = relayed(LINES.format(count=pages).replace("done", "sleep 0.02; done") + "; exit 3")
    worker = made.look_after(log_buffer_bytes=pipe.USUAL_BYTES)
    made.task.start()
    worker.event("exit")
    status = Path(f"/proc/{worker.ask('hello')['pid']}/status")
    seen = [""]

    def same_as_before() -> bool:
        before, seen[0] = seen[0], switches(status)
        return bool(before) and before == seen[0]

    wait_until(same_as_before, 5, "the worker does not come to rest")
    assert LogReader(made.stdout).finish() == numbered(pages)
    finish(worker)


def test_what_comes_after_nobody_waited_for_it_any_more_is_kept_for_a_late_reader(
    relayed: Make, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    made = relayed(f"(until test -e {go}; do sleep 0.05; done; sleep 0.5; echo late >&2) & exit 3")
    worker = made.look_after()
    made.task.start()
    assert worker.event("drained")["complete"] is False
    go.touch()
    wait_until(lambda: str(worker.ask("hello")["relays"]).count("fd/-1") == 2, 10)
    assert LogReader(made.stderr).finish() == b"late\n"
    assert LogReader(made.stdout).finish() == b""
    finish(worker)


def test_an_idle_worker_does_not_wake_up(relayed: Make) -> None:
    made = relayed("echo ready; exec sleep 60")
    out = LogReader(made.stdout)
    worker = made.look_after()
    made.task.start()
    wait_until(lambda: out.data, 10)
    status = Path(f"/proc/{worker.ask('hello')['pid']}/status")
    before = wait_until(lambda: switches(status), 5)
    assert not out.eof.wait(1.0)
    assert switches(status) == before
    worker.ask("kill", signal=int(signal.SIGKILL))
    worker.event("drained")
    finish(worker)


def switches(status: Path) -> str:
    lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
    if not lines["State"].startswith("S"):
        return ""
    return lines["voluntary_ctxt_switches"] + lines["nonvoluntary_ctxt_switches"]


def test_logs_that_nobody_wants_do_not_hold_the_task_up(relayed: Make) -> None:
    made = relayed(LINES.format(count=400_000 // 8) + "; exit 5")
    worker = made.look_after(stdout="/dev/null", stderr="/dev/null")
    made.task.start()
    assert worker.event("exit")["code"] == 5
    assert worker.event("drained")["complete"] is True
    finish(worker)


def test_the_log_of_a_task_that_had_ended_ends_at_once(relayed: Make) -> None:
    made = relayed("exit 3")
    out = LogReader(made.stdout)
    made.task.start()
    worker = made.look_after()
    worker.event("exit")
    assert out.finish() == b""
    finish(worker)


def test_a_log_that_its_shim_closed_before_is_carried_on_to_its_end(relayed: Make) -> None:
    """Covers a task that ended without a worker, while the plugin holds the written output."""
    made = relayed(LINES.format(count=1000))
    held = os.open(made.task.stdout, os.O_RDONLY | os.O_NONBLOCK)
    made.task.start()
    made.task.call("Wait", ttrpc.message({1: made.task.name}))
    out = LogReader(made.stdout)
    worker = made.look_after()
    os.close(held)
    assert out.finish() == numbered(1000)
    finish(worker)


def test_an_end_lets_go_of_both_sides(relayed: Make) -> None:
    made = relayed("echo ready; exec sleep 60")
    out = LogReader(made.stdout)
    worker = made.look_after()
    made.task.start()
    wait_until(lambda: out.data, 10)
    finish(worker)
    assert out.finish() == b"ready\n"


@pytest.mark.parametrize("what", ["nothing", "file", "link", "directory"])
def test_a_source_that_is_no_fifo_gives_no_worker(
    launcher: LauncherProcess, relayed: Make, what: str
) -> None:
    made = relayed("exit 0")
    place = made.task.stdout.with_suffix(".odd")
    if what == "file":
        place.touch()
    elif what == "link":
        place.symlink_to(made.task.stdout)
    elif what == "directory":
        place.mkdir()
    peer, first = launcher.fork_with(made.spec(stdout_source=str(place)))
    with peer:
        assert first["event"] == "failed"
        error = first["error"]
        assert isinstance(error, dict)
        assert "to which the task's shim writes the log" in str(error["brief"])
    with made.look_after() as worker:
        assert worker.ask("end")["ok"] is True


@pytest.mark.parametrize("precious", ["file", "fifo"])
def test_a_link_in_the_place_of_nomads_fifo_gets_nothing(
    launcher: LauncherProcess, relayed: Make, precious: str
) -> None:
    made = relayed("echo secret; exec sleep 60")
    made.task.start()
    place = made.stdout.with_suffix(".precious")
    place.touch() if precious == "file" else os.mkfifo(place)
    reader = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    made.stdout.unlink()
    made.stdout.symlink_to(place)
    peer, first = launcher.fork_with(made.spec())
    with peer:
        assert first["event"] == "failed"
        assert "cannot keep the log FIFO" in str(first["error"])
    assert os.read(reader, 100) == b""
    os.close(reader)


def test_a_fifo_that_is_swapped_later_gets_nothing(relayed: Make) -> None:
    made = relayed("echo ready; exec sleep 60")
    out = LogReader(made.stdout)
    worker = made.look_after()
    assert out.opened.wait(slowed(10))
    made.stdout.unlink()
    os.mkfifo(made.stdout)
    stranger = os.open(made.stdout, os.O_RDONLY | os.O_NONBLOCK)
    made.task.start()
    wait_until(lambda: bytes(out.data) == b"ready\n", 10)
    assert os.read(stranger, 100) == b""
    os.close(stranger)
    worker.ask("kill", signal=int(signal.SIGKILL))
    worker.event("drained")
    finish(worker)
