"""Tests of the launcher on a socket of systemd; the test acts as systemd, and as the parent."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.processes.launcher_link import LauncherLink
from proto.release import RELEASE
from tests.support.waiting import slowed, wait_until
from tests.support.workers.peers import ANSWER_S, ROOT, LauncherProcess, Peer
from workers import protocol


class SocketUnit:
    """Systemd's part in a socket unit: binds the name, keeps and hands over the socket."""

    def __init__(self, launcher: LauncherProcess, tmp_path: Path) -> None:
        self._launcher = launcher
        self._notify = tmp_path / "notify"
        path = launcher.state_dir / protocol.LAUNCHER_SOCKET
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()

    def spawn(self, root: Path = ROOT) -> subprocess.Popen[bytes]:
        """Starts the service's launcher."""
        words = [
            *(sys.executable, "-I", str(root / "workers" / "launcher.py")),
            *("--state-dir", str(self._launcher.state_dir)),
            *("--notify", str(self._notify), "--watchdog-us", "", "--listen-fds", "1"),
        ]
        number = self.socket.fileno()
        return subprocess.Popen(
            ["/bin/bash", "-c", f'exec "$@" 3<&{number}', "bash", *words],
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(number,),
            start_new_session=True,
        )


@pytest.fixture
def launcher() -> Iterator[LauncherProcess]:
    """Yields a launcher that a plugin started."""
    with LauncherProcess() as running:
        yield running


@pytest.fixture
def unit(launcher: LauncherProcess, tmp_path: Path) -> Iterator[SocketUnit]:
    """Yields a systemd that has the name of the plugin's launcher and runs another launcher."""
    listening = SocketUnit(launcher, tmp_path)
    before, launcher.process = launcher.process, listening.spawn()
    assert before.wait(slowed(ANSWER_S)) == -signal.SIGKILL, "the plugin's, which nobody can reach"
    yield listening
    listening.socket.close()


def hello(peer: Peer) -> dict[str, object]:
    peer.send({"op": protocol.HELLO, "v": protocol.VERSION})
    return peer.receive() or {}


def asked(launcher: LauncherProcess) -> dict[str, object]:
    """Returns the pid of the launcher that answers at the launcher's name."""
    with launcher.connect() as peer:
        return hello(peer)


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(slowed(ANSWER_S))


def test_it_answers_on_systemds_socket(launcher: LauncherProcess, unit: SocketUnit) -> None:
    assert unit.socket.fileno() > 0
    assert asked(launcher)["pid"] == launcher.process.pid
    with launcher.worker("a") as peer:
        pid = peer.ask("hello")["pid"]
        links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    assert len([link for link in links if link.startswith("socket:")]) == 2, "its own two"


def test_who_connects_while_there_is_none_waits_for_the_next(
    launcher: LauncherProcess, unit: SocketUnit
) -> None:
    with launcher.worker("a") as worker:
        end(launcher.process)
        with launcher.connect() as peer:
            peer.send({"op": protocol.HELLO, "v": protocol.VERSION})
            launcher.process = unit.spawn()
            assert (peer.receive() or {})["pid"] == launcher.process.pid
        assert worker.ask("hello")["ok"] is True


def test_one_that_retires_leaves_systemd_its_socket(
    launcher: LauncherProcess, unit: SocketUnit
) -> None:
    with launcher.connect() as peer:
        peer.send({"op": protocol.RETIRE, "v": 99})
        assert peer.receive() == {"ok": True}
    assert launcher.process.wait(slowed(ANSWER_S)) == -signal.SIGTERM, "a good end for systemd"
    with launcher.connect() as peer:
        launcher.process = unit.spawn()
        assert hello(peer)["pid"] == launcher.process.pid


async def test_a_plugin_that_has_it_retire_takes_the_one_that_systemd_starts(
    launcher: LauncherProcess, unit: SocketUnit, tmp_path: Path
) -> None:
    for name in ("proto", "workers"):
        shutil.copytree(ROOT / name, tmp_path / name)
    release = tmp_path / "proto" / "release.py"
    release.write_text(re.sub(re.escape(RELEASE), "0.9", release.read_text()))
    end(launcher.process)
    old = unit.spawn(tmp_path)
    wait_until(lambda: asked(launcher).get("pid") == old.pid, 20, "no old launcher")
    assert asked(launcher)["release"] == "0.9"

    def start_another() -> None:
        old.wait(slowed(ANSWER_S))
        launcher.process = unit.spawn()

    systemd = threading.Thread(target=start_another)
    systemd.start()
    await LauncherLink(launcher.state_dir).ensure()
    systemd.join(slowed(ANSWER_S))
    answer = asked(launcher)
    assert (answer["release"], answer["pid"]) == (RELEASE, launcher.process.pid)


def test_it_makes_its_own_socket_where_systemds_has_lost_its_name(
    launcher: LauncherProcess, unit: SocketUnit
) -> None:
    name = launcher.state_dir / protocol.LAUNCHER_SOCKET
    before = name.stat().st_ino
    end(launcher.process)
    plugins = launcher.spawn()  # as after a hello without an answer
    wait_until(lambda: name.exists() and name.stat().st_ino != before, 20, "no launcher")
    launcher.process = unit.spawn()
    assert plugins.wait(slowed(ANSWER_S)) == -signal.SIGKILL
    wait_until(lambda: _answers(launcher) == launcher.process.pid, 20, "it does not serve")
    assert "systemctl stop" in launcher.log.read_text()


def test_it_ends_when_its_socket_is_shut_down(launcher: LauncherProcess, unit: SocketUnit) -> None:
    assert asked(launcher)["pid"] == launcher.process.pid
    unit.socket.shutdown(socket.SHUT_RDWR)
    assert launcher.process.wait(slowed(ANSWER_S)) == 1
    assert "shut down" in launcher.log.read_text()


def test_the_lock_says_whose_it_is(launcher: LauncherProcess) -> None:
    words = (launcher.state_dir / protocol.LAUNCHER_LOCK).read_text().split()
    assert words[0] == str(launcher.process.pid)
    assert words[-1] == RELEASE


@pytest.mark.parametrize("text", ["", "1", "x y z", "1 1 1.0"])
def test_a_lock_that_says_nothing_has_nobody_ended(
    launcher: LauncherProcess, tmp_path: Path, text: str
) -> None:
    (launcher.state_dir / protocol.LAUNCHER_LOCK).write_text(text)
    waiting = launcher.spawn("--notify", str(tmp_path / "notify"))
    try:
        for _ in range(3):
            assert asked(launcher)["pid"] == launcher.process.pid
        assert waiting.poll() is None
        os.kill(launcher.process.pid, signal.SIGTERM)
        launcher.process.wait(slowed(ANSWER_S))
        launcher.process = waiting
        wait_until(lambda: _answers(launcher) == waiting.pid, 20, "the waiting one does not serve")
    finally:
        end(waiting)


def _answers(launcher: LauncherProcess) -> object:
    try:
        return asked(launcher).get("pid")
    except OSError:
        return None
