"""Tests of the launcher as a process: forks, answers, survives bad peers, and leaks nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.lifecycle import teardown
from actors.processes.launcher_link import LauncherLink
from proto import frames
from proto.errors import Code, DriverError
from proto.release import RELEASE
from tests.support.waiting import slowed, wait_until
from tests.support.workers.peers import ROOT, LauncherProcess
from workers import identity, protocol


@pytest.fixture
def launcher() -> Iterator[LauncherProcess]:
    """Yields a launcher for the test alone."""
    with LauncherProcess() as running:
        yield running


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def open_files(pid: int) -> list[str]:
    return sorted(entry.name for entry in Path(f"/proc/{pid}/fd").iterdir())


def error_code(frame: dict[str, object] | None) -> object:
    assert frame is not None
    error = frame["error"]
    assert isinstance(error, dict)
    return error["code"]


def test_it_says_who_it_is(launcher: LauncherProcess) -> None:
    with launcher.connect() as peer:
        peer.send({"op": "hello", "v": 1})
        assert peer.receive() == {
            "ok": True,
            **protocol.STATED,
            "release": RELEASE,
            "pid": launcher.process.pid,
        }
        assert peer.receive() is None
    assert comm(launcher.process.pid) == "cd-launcher"


def test_a_worker_keeps_the_connection_that_asked_for_it(launcher: LauncherProcess) -> None:
    with launcher.fork("a")[0] as peer:
        answer = peer.ask("hello")
        pid = answer["pid"]
        assert isinstance(pid, int)
        found = identity.identify(pid)
        assert found is not None
        assert found.to_wire() == {key: answer[key] for key in found.to_wire()}
        assert comm(pid) == "cd-worker"
        assert os.getsid(pid) == pid


def test_a_worker_holds_nothing_of_its_launcher(launcher: LauncherProcess) -> None:
    with launcher.worker("a") as peer:
        pid = peer.ask("hello")["pid"]
        links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    assert not [link for link in links if link.endswith(("launcher.lock", "launcher.sock"))]
    assert links.count("/dev/null") == 2
    assert links.count("anon_inode:[eventpoll]") == 1
    assert len([link for link in links if link.startswith("socket:")]) == 2
    assert len(links) == 9, f"and stderr, the state directory, its lock, its record, but: {links}"


def test_fifty_forks_leave_no_descriptor_and_no_zombie(launcher: LauncherProcess) -> None:
    pid = launcher.process.pid
    # stdio, the state directory, the lock, the socket; two more while a child accepts.
    before: list[str] = []

    def is_at_rest() -> bool:
        before[:] = open_files(pid)
        return len(before) == 6

    wait_until(is_at_rest, 10, lambda: str(before))
    for number in range(50):
        with launcher.worker(f"t{number}") as peer:
            assert peer.ask("end")["ok"] is True
            assert peer.receive() is None
    wait_until(lambda: not launcher.worker_pids(), 10, "workers are left")
    wait_until(lambda: open_files(pid) == before, 10, lambda: str(open_files(pid)))
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(lambda: children.read_text() == "", 10, "a zombie is left")


def test_a_peer_that_says_nothing_holds_nobody_up(launcher: LauncherProcess) -> None:
    with launcher.connect(), launcher.connect(), launcher.worker("a") as peer:
        assert peer.ask("hello")["ok"] is True


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\2\x01\x02", b"GET / HTTP/1.1\r\n\r\n"]
)
def test_a_peer_that_babbles_harms_nobody(launcher: LauncherProcess, data: bytes) -> None:
    with launcher.connect() as babbler, launcher.worker("a") as peer:
        babbler.socket.sendall(data)
        assert peer.ask("hello")["ok"] is True


def test_requests_that_it_does_not_know_are_refused_with_a_reason(
    launcher: LauncherProcess,
) -> None:
    for request, code in (
        ({"op": "dance"}, "unsupported"),
        ({"op": "hello", "v": 99}, "unsupported"),
        ({"op": "fork", "v": 99}, "unsupported"),
        ({}, "unsupported"),
    ):
        with launcher.connect() as peer:
            peer.send(dict(request))
            assert error_code(peer.receive()) == code


@pytest.mark.parametrize("spec", [{}, {"name": 1, "dir": "/x"}, {"name": "a"}])
def test_a_spec_that_makes_no_sense_gives_no_worker(
    launcher: LauncherProcess, spec: dict[str, object]
) -> None:
    peer, first = launcher.fork_with(spec)
    with peer:
        assert first["event"] == "failed"
        assert error_code(first) == "corrupt"
        assert peer.receive() is None


def test_a_second_launcher_leaves_the_first_alone(launcher: LauncherProcess) -> None:
    assert launcher.spawn().wait(slowed(20)) == 0
    assert "another launcher serves" in launcher.log.read_text()
    with launcher.worker("a") as peer:
        assert peer.ask("hello")["ok"] is True


def test_a_launcher_that_retires_leaves_its_workers_and_its_place(
    launcher: LauncherProcess,
) -> None:
    with launcher.worker("a") as worker:
        with launcher.connect() as peer:
            peer.send({"op": "retire", "v": 1})
            assert peer.receive() == {"ok": True}
        assert not (launcher.state_dir / protocol.LAUNCHER_SOCKET).exists()
        successor = launcher.spawn()
        assert launcher.process.wait(slowed(10)) == -signal.SIGTERM
        launcher.process = successor
        launcher.wait_ready()
        with launcher.worker("b") as other:
            assert other.ask("hello")["ok"] is True
        assert worker.ask("hello")["ok"] is True


def test_a_launcher_that_was_killed_is_replaced_and_its_workers_go_on(
    launcher: LauncherProcess,
) -> None:
    with launcher.worker("a") as worker:
        launcher.process.send_signal(signal.SIGKILL)
        launcher.process.wait(slowed(10))
        launcher.process = launcher.spawn()
        launcher.wait_ready()
        with launcher.worker("b") as other:
            assert other.ask("hello")["ok"] is True
        assert worker.ask("hello")["ok"] is True


def test_its_socket_is_for_root_only(launcher: LauncherProcess) -> None:
    mode = (launcher.state_dir / protocol.LAUNCHER_SOCKET).stat().st_mode
    assert mode & 0o777 == 0o600


def test_nothing_of_the_rehearsal_is_left(launcher: LauncherProcess) -> None:
    names = {path.name for path in launcher.state_dir.iterdir()}
    assert names == {protocol.LAUNCHER_SOCKET, protocol.LAUNCHER_LOCK, protocol.LAUNCHER_LOG}
    assert launcher.log.read_text() == ""


def test_it_says_why_it_cannot_start() -> None:
    argv = [sys.executable, "-I", str(ROOT / "workers" / "launcher.py")]
    done = subprocess.run(
        [*argv, "--state-dir", "/nonexistent"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "/nonexistent" in done.stderr
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--state-dir" in done.stderr


def test_it_says_why_a_worker_would_not_work_here(tmp_path: Path) -> None:
    argv = [sys.executable, "-I", str(ROOT / "workers" / "launcher.py")]
    said = ""
    for most in range(9, 16):  # open files: enough for the launcher, too few for the rehearsal
        done = subprocess.run(
            ["prlimit", f"--nofile={most}", *argv, "--state-dir", str(tmp_path)],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "LimitNOFILE" in done.stderr
        said += done.stderr
    assert "cannot set up the task's worker" in said
    assert "cannot keep the log FIFO" in said


async def test_a_launcher_that_knows_no_such_fork_is_replaced_and_the_fork_asked_for_again(
    launcher: LauncherProcess,
) -> None:
    place = launcher.state_dir / protocol.LAUNCHER_SOCKET
    successor = place.rename(place.with_name("successor.sock"))
    unknown = DriverError("no version in common", code=Code.UNSUPPORTED).to_wire()
    asked: list[object] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (request,) = frames.Decoder().feed(await reader.read(65536))
        asked.append(request["op"])
        answer: frames.Frame = {"ok": True, **protocol.STATED, "release": "0.9.0"}
        if request["op"] == protocol.FORK:
            answer = {"ok": False, "event": protocol.FAILED, "error": unknown}
        if request["op"] == protocol.RETIRE:
            successor.rename(place)  # as systemd would
        writer.write(frames.encode(answer))
        writer.close()

    async with await asyncio.start_unix_server(serve, place):
        spec = protocol.WorkerSpec(name="t", dir=str(launcher.task_dir("t")))
        worker = await LauncherLink(launcher.state_dir).fork(spec)
        assert (await worker.request(protocol.HELLO))["release"] == RELEASE
        await teardown.end_worker(worker)
    assert asked == [protocol.FORK, protocol.HELLO, protocol.RETIRE]


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "x" * ((16 << 20) - 64), "v": 1},
        {"op": "hello", "v": ["x" * ((16 << 20) - 64)], "v_max": 9},
        {
            "op": protocol.FORK,
            "v": 1,
            "spec": {"name": "x" * (5 << 20), "dir": "/" + "x" * (5 << 20)},
        },
        {"op": protocol.FORK, "v": 1, "spec": {"name": "t", "dir": "\ud800" * (1 << 20)}},
        {"op": protocol.FORK, "v": 1, "spec": {"name": "t", "dir": "/x\0y"}},
    ],
    ids=["request", "version", "spec", "no text", "no path"],
)
def test_what_a_peer_sends_is_neither_logged_nor_sent_back_whole(
    launcher: LauncherProcess, request_: dict[str, object]
) -> None:
    before = launcher.log.stat().st_size
    with launcher.connect() as peer:
        peer.send(request_)
        answer = peer.receive()
    assert len(frames.encode(answer or {})) < 20_000
    wait_until(lambda: not launcher.worker_pids(), 10)
    assert launcher.log.stat().st_size - before < 10_000
    assert error_free(launcher)


def error_free(launcher: LauncherProcess) -> bool:
    with launcher.connect() as peer:
        peer.send({"op": "hello", "v": 1})
        return (peer.receive() or {}).get("ok") is True
