"""A worker as a process: bad peers, bad directories, FIFOs and shims of every kind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from proto import frames
from tests.support.fakes.shim import FakeTask
from tests.support.kernel.device_nodes import tripwire
from tests.support.waiting import wait_until
from tests.support.workers.answers import error_of, finish
from tests.support.workers.peers import LauncherProcess, Peer, has_ended
from workers import control, protocol


def test_several_connections_are_served_and_their_end_ends_nothing(
    launcher: LauncherProcess, name: str
) -> None:
    first = launcher.worker(name)
    with launcher.control(name) as last:
        with launcher.control(name) as second, launcher.control(name) as third:
            first.socket.close()
            assert second.ask("hello")["pid"] == third.ask("hello")["pid"]
        finish(last)


def test_a_worker_that_has_nothing_to_watch_ends_with_its_last_connection(
    launcher: LauncherProcess, name: str
) -> None:
    first = launcher.worker(name)
    pid = int(str(first.ask("hello")["pid"]))
    second = launcher.control(name)
    first.socket.close()
    assert second.ask("hello")["pid"] == pid
    second.socket.close()
    wait_until(lambda: has_ended(pid), 10, "the worker goes on for nobody")
    finish(launcher.worker(name))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\1\xc1",
        b"\0\0\0\2\x01\x02",
        frames.encode({"op": "hello"}),
        frames.encode({"id": "one", "op": "hello"}),
    ],
)
def test_a_frame_that_makes_no_sense_closes_its_own_connection_only(
    launcher: LauncherProcess, name: str, data: bytes
) -> None:
    worker = launcher.worker(name)
    with launcher.control(name) as babbler:
        babbler.socket.sendall(data)
        assert babbler.receive() is None
    assert worker.ask("hello")["ok"] is True
    finish(worker)


def test_a_frame_may_come_byte_by_byte(launcher: LauncherProcess, name: str) -> None:
    worker = launcher.worker(name)
    for byte in frames.encode({"id": 1, "op": "hello"}):
        worker.socket.sendall(bytes([byte]))
    answer = worker.receive()
    assert answer is not None
    assert answer["re"] == 1
    finish(worker)


def test_a_peer_that_does_not_read_is_dropped_and_the_others_are_served(
    launcher: LauncherProcess, name: str
) -> None:
    worker = launcher.worker(name)
    with launcher.control(name) as deaf:
        flood = frames.encode({"id": 1, "op": "hello"}) * 500
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            # Far more answers than socket and worker buffer for the peer.
            for _ in range(control.MAX_UNSENT_BYTES // 100):
                deaf.socket.sendall(flood)
        assert worker.ask("hello")["ok"] is True
    finish(worker)


def test_more_connections_than_it_keeps_are_turned_away(
    launcher: LauncherProcess, name: str
) -> None:
    worker = launcher.worker(name)
    peers: list[Peer] = []
    try:
        for _ in range(control.MAX_CONNECTIONS + 5):
            peers.append(launcher.control(name))  # noqa: PERF401 - closed also if one fails
        assert peers[0].ask("hello")["ok"] is True
        code, text = error_of(peers[-1].receive() or {})
        assert (code, "no more connections" in text) == ("exhausted", True)
        assert peers[-1].receive() is None
        assert worker.ask("hello")["ok"] is True
    finally:
        for peer in peers:
            peer.socket.close()
    finish(worker)


@pytest.mark.parametrize(
    ("op", "fields", "code"),
    [
        ("dance", {}, "unsupported"),
        ("hello", {"v": 2}, "unsupported"),
        ("watch", {}, "corrupt"),
        ("kill", {"signal": 0}, "invalid"),
        ("kill", {"signal": 65}, "invalid"),
        ("kill", {"signal": True}, "invalid"),
        ("kill", {"signal": 15}, "precondition"),
        ("stats", {}, "invalid"),
        ("stats", {"interval_ms": -1}, "invalid"),
        ("stats", {"interval_ms": 1000}, "precondition"),
    ],
)
def test_requests_that_cannot_be_done_are_refused_with_a_reason(
    launcher: LauncherProcess, name: str, op: str, fields: dict[str, object], code: str
) -> None:
    worker = launcher.worker(name)
    assert error_of(worker.ask(op, **fields))[0] == code
    finish(worker)


def test_a_task_has_one_worker(launcher: LauncherProcess, name: str) -> None:
    worker = launcher.worker(name)
    peer, first = launcher.fork(name)
    with peer:
        assert first["event"] == "failed"
        assert error_of(first)[0] == "already-exists"
    lock = (launcher.task_dir(name) / protocol.WORKER_LOCK).read_text().split()
    assert int(lock[0]) == worker.ask("hello")["pid"]
    finish(worker)


def test_end_frees_the_place_for_a_successor_before_it_is_answered(
    launcher: LauncherProcess, name: str
) -> None:
    for _ in range(5):
        worker = launcher.worker(name)
        assert worker.ask("end")["ok"] is True
        # The new worker does not wait for the end of the old worker.
        worker.socket.close()
    finish(launcher.worker(name))
    left = {path.name for path in launcher.task_dir(name).iterdir()}
    assert left == {protocol.WORKER_LOCK, "exit.new"}


@pytest.mark.parametrize(
    ("refusal", "number", "code"),
    [
        ("runc did not terminate successfully: open log.json: no such file", signal.SIGTERM, 7),
        ("runsc did not terminate successfully: exit status 1", signal.SIGKILL, 137),
    ],
)
def test_a_task_whose_runtime_cannot_be_run_is_signalled_without(
    launcher: LauncherProcess,
    make_task: Callable[..., FakeTask],
    refusal: str,
    number: int,
    code: int,
) -> None:
    task = make_task("trap 'exit 7' TERM; while :; do sleep 0.05; done")
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    assert worker.watch(task.create())["ok"] is True
    task.start()
    wait_until(lambda: _has_trap(task.pid), 10, "no trap")
    task.refuse_kill(refusal)
    assert worker.ask("kill", signal=int(number))["ok"] is True
    assert worker.event("exit")["code"] == code
    finish(worker)


def test_the_sandbox_of_a_task_gets_no_signal_but_the_last(
    launcher: LauncherProcess, make_task: Callable[..., FakeTask]
) -> None:
    task = make_task("exec sleep 60")
    worker = launcher.worker(task.name, task.stdout, task.stderr)
    assert worker.watch(task.create())["ok"] is True
    task.start()
    task.refuse_kill("runsc did not terminate successfully: exit status 1")
    answer = worker.ask("kill", signal=int(signal.SIGTERM))
    assert error_of(answer)[1].startswith("the shim refuses: runsc did not terminate")
    assert worker.ask("kill", signal=int(signal.SIGKILL))["ok"] is True
    assert worker.event("exit")["code"] == 137
    finish(worker)


def _has_trap(pid: int) -> bool:
    """Tells whether a process catches SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_a_directory_that_others_can_enter_is_refused(launcher: LauncherProcess, name: str) -> None:
    launcher.task_dir(name).chmod(0o755)
    peer, first = launcher.fork(name)
    with peer:
        assert error_of(first)[0] == "precondition"


def test_a_directory_that_is_not_there_is_named(launcher: LauncherProcess) -> None:
    peer, first = launcher.fork_with({"name": "x", "dir": "/nonexistent/task"})
    with peer:
        assert "/nonexistent/task" in error_of(first)[1]


@pytest.mark.parametrize("kind", ["link", "file", "directory", "device", "nothing"])
def test_only_a_fifo_is_kept_as_a_log(
    launcher: LauncherProcess, name: str, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "stdout.fifo"
    match kind:
        case "link":
            os.mkfifo(tmp_path / "elsewhere")
            path.symlink_to(tmp_path / "elsewhere")
        case "file":
            path.write_text("")
        case "directory":
            path.mkdir()
        case "device":
            tripwire(path)
    peer, first = launcher.fork(name, path)
    with peer:
        assert first["event"] == "failed"
        code, text = error_of(first)
    assert code == "precondition"
    assert str(path) in text
    # The file was not even opened.
    assert ("No such file" if kind == "nothing" else "the file is not a FIFO") in text
    # No leftover prevents a second try.
    finish(launcher.worker(name))


@pytest.mark.parametrize("linked", ["alloc", "alloc/logs"])
def test_no_directory_that_tasks_may_write_to_is_followed_as_a_link(
    launcher: LauncherProcess, name: str, tmp_path: Path, linked: str
) -> None:
    logs = tmp_path / "alloc/logs"
    logs.mkdir(parents=True)
    os.mkfifo(logs / "x.fifo")
    (tmp_path / linked).rename(tmp_path / "elsewhere")
    (tmp_path / linked).symlink_to(tmp_path / "elsewhere")
    peer, first = launcher.fork(name, logs / "x.fifo")
    with peer:
        code, text = error_of(first)
    assert code == "precondition"
    assert "open: Not a directory" in text


def test_a_worker_says_how_others_open_the_fifo_that_it_holds(
    launcher: LauncherProcess, name: str, tmp_path: Path
) -> None:
    fifo = tmp_path / "x.fifo"
    os.mkfifo(fifo)
    same = fifo.stat()
    peer, first = launcher.fork(name, fifo)
    with peer:
        fifo.unlink()
        fifo.write_text("something else")
        logs = first["logs"]
        assert isinstance(logs, dict)
        assert os.path.samestat(Path(logs[str(fifo)]).stat(), same)
        peer.ask("end")


def test_no_logs_need_no_keepers(launcher: LauncherProcess, name: str) -> None:
    finish(launcher.worker(name, "/dev/null", ""))


def test_a_deep_state_directory_is_no_trouble(launcher: LauncherProcess) -> None:
    name = "/".join(["a" * 60] * 3)
    (launcher.state_dir / name).parent.mkdir(parents=True)
    worker = launcher.worker(name)
    with launcher.control(name) as second:
        assert second.ask("hello")["ok"] is True
    finish(worker)


def test_ending_a_worker_lets_go_of_the_logs(
    launcher: LauncherProcess, name: str, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    worker = launcher.worker(name, fifo)
    os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))  # a reader exists
    finish(worker)
    with pytest.raises(OSError, match="No such device"):
        os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
