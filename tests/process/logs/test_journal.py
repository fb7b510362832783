"""Tests of a worker that sends a task's log to journald: fields, long lines, an absent journald."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons.journals import RealJournal, RecordingJournal
from tests.support.fakes.shim import FakeShim
from tests.support.waiting import wait_until
from tests.support.workers.peers import LauncherProcess, Peer, has_ended
from workers import protocol

KIB = 1024
FIELDS = "CONTAINER_NAME=c1\nSYSLOG_IDENTIFIER=web\nNOMAD_ALLOC_ID=a1\n"
Journal = RealJournal | RecordingJournal


@pytest.fixture(params=[RealJournal, RecordingJournal])
def journal(request: pytest.FixtureRequest) -> Iterator[Journal]:
    """Yields each of both journals."""
    made: Journal = request.param()
    yield made
    made.close()


@pytest.fixture
def recorded() -> Iterator[RecordingJournal]:
    """Yields the journal whose reads the test controls."""
    made = RecordingJournal()
    yield made
    made.close()


class Life:
    """A task whose log goes to a journal."""

    def __init__(self, launcher: LauncherProcess, name: str, directory: Path) -> None:
        self.directory = directory
        self._launcher, self._name = launcher, name
        self._shim: FakeShim | None = None
        self._more: dict[str, object] = {}
        self.worker: Peer | None = None

    def start(self, journal: Journal, script: str, **more: object) -> Peer:
        """Starts worker and task."""
        self._more = {"log_type": protocol.JOURNALD, "journal": journal.socket} | more
        worker = self.look_after()
        fifos = [
            str(self._launcher.task_dir(self._name) / name)
            for name in (protocol.STDOUT_FIFO, protocol.STDERR_FIFO)
        ]
        script = script.format(done=self.directory / "done", go=self.directory / "go")
        self._shim = FakeShim(self._name, script, self.directory / "sock", (fifos[0], fifos[1]))
        assert worker.watch(self._shim.create())["ok"] is True
        self._shim.start()
        return worker

    def look_after(self) -> Peer:
        """Starts a worker."""
        self.worker = self._launcher.worker(
            self._name, "stdout", "stderr", journal_fields=FIELDS, **self._more
        )
        return self.worker

    def kill_worker(self) -> None:
        """Kills the worker."""
        assert self.worker is not None
        pid = int(str(self.worker.ask("hello")["pid"]))
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: has_ended(pid), 10)
        self.worker.socket.close()

    def wait_for(self, name: str) -> None:
        """Waits until the task has made the file."""
        wait_until((self.directory / name).exists, 30, "the task waits")

    def close(self) -> None:
        """Ends the running processes."""
        if self.worker is not None:
            self.worker.socket.close()
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


def texts(journal: Journal) -> list[str]:
    return [message["MESSAGE"] for message in journal.messages()]


def test_each_line_is_a_message_with_the_fields_and_the_priority_of_the_stream(
    life: Life, journal: Journal
) -> None:
    worker = life.start(journal, "echo problem >&2; sleep 0.3; seq 1 3; echo; printf end")
    assert worker.event("drained")["complete"] is True
    wait_until(lambda: len(journal.messages()) >= 6, 10, lambda: str(texts(journal)))
    first, *others = journal.messages()
    assert (first["MESSAGE"], first["PRIORITY"]) == ("problem", "3")
    assert [message["MESSAGE"] for message in others] == ["1", "2", "3", "", "end"]
    for message in others:
        assert message["PRIORITY"] == "6"
        assert message["CONTAINER_NAME"] == "c1"
        assert message["SYSLOG_IDENTIFIER"] == "web"
        assert message["NOMAD_ALLOC_ID"] == "a1"


@pytest.mark.parametrize("size", [100_000, 400_000])
def test_a_line_beyond_the_limit_of_a_datagram_goes_as_a_sealed_file(
    life: Life, journal: Journal, size: int
) -> None:
    worker = life.start(journal, f"printf '%0{size}d\\n' 7")
    assert worker.event("drained")["complete"] is True
    wait_until(journal.messages, 10)
    assert texts(journal) == ["7".zfill(size)]


def test_a_line_of_more_than_half_a_mebibyte_is_sent_in_marked_parts(
    life: Life, recorded: RecordingJournal
) -> None:
    worker = life.start(recorded, "printf '%01500000d\\n' 7")
    assert worker.event("drained")["complete"] is True
    parts = recorded.messages()
    assert "".join(part["MESSAGE"] for part in parts) == "7".zfill(1_500_000)
    marks = [part.get("CONTAINER_PARTIAL_MESSAGE") for part in parts]
    assert marks == ["true"] * (len(parts) - 1) + [None]
    assert len(parts) > 1


def test_while_journald_restarts_lines_wait_and_come_in_order(life: Life, journal: Journal) -> None:
    script = (
        "seq 1 50; touch {go}.half; until test -e {go}; do sleep 0.05; done; seq 51 100;"
        "touch {done}; exec sleep 600"
    )
    life.start(journal, script)
    wait_until(lambda: len(journal.messages()) >= 50, 10)
    journal.stop()
    (life.directory / "go").touch()
    life.wait_for("done")
    journal.start()
    wait_until(lambda: len(journal.messages()) >= 100, 15, lambda: str(texts(journal)[-3:]))
    assert texts(journal) == [str(number) for number in range(1, 101)]


def test_a_journald_that_takes_nothing_does_not_stop_the_task_and_dropped_bytes_are_counted(
    life: Life, recorded: RecordingJournal
) -> None:
    recorded.reads = False
    worker = life.start(
        recorded,
        # The socket takes ten messages between two reads: few long lines fill the buffer.
        "seq -f %099.f 1 14000; touch {done}; exec sleep 600",
        log_patience_ms=400,
        log_buffer_bytes=128 * KIB,
    )
    life.wait_for("done")
    states = [worker.event("log")]
    while str(states[-1]["state"]) != "dropping":
        states.append(worker.event("log"))
    assert str(states[-1]["problem"]) == "journald takes no messages"
    recorded.reads = True
    last = "14000".zfill(99)
    wait_until(lambda: last in texts(recorded)[-1:], 20, lambda: str(texts(recorded)[-1:]))
    while str(states[-1]["state"]) != "reading":
        states.append(worker.event("log"))
    dropped = int(str(states[-1]["dropped"]))
    sent = sum(len(text) + 1 for text in texts(recorded))
    assert dropped > 0
    assert sent == 14_000 * 100 - dropped


def test_without_journald_the_task_starts_and_the_lines_wait(
    life: Life, recorded: RecordingJournal
) -> None:
    recorded.stop()
    worker = life.start(recorded, "seq 1 50; exec sleep 600", log_patience_ms=400)
    state = worker.event("log")
    assert state["state"] == "stalled"
    assert str(state["problem"]).startswith("journald is away: No such file or directory")
    life.kill_worker()
    recorded.start()
    life.look_after()
    wait_until(lambda: recorded.messages() or None, 10)
