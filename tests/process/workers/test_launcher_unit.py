"""Tests of the launcher under systemd's unit; the test receives the notifications."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.processes.launcher_link import LauncherLink
from tests.support.waiting import slowed
from tests.support.workers.launcher import launcher_pid
from tests.support.workers.peers import ANSWER_S, ROOT, LauncherProcess
from workers.launch.systemd import Notifier

OFTEN_US = "30000"
SELDOM_US = "3600000000"


class Systemd:
    """A notification socket."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(slowed(ANSWER_S))

    def hear(self) -> dict[str, str]:
        """Receives the next message."""
        lines = self._socket.recv(4096).decode(errors="surrogateescape").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def close(self) -> None:
        """Closes the socket: from now on no process listens."""
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    """Yields a listening systemd."""
    listening = Systemd(tmp_path / "notify")
    yield listening
    listening.close()


@pytest.fixture
def launcher() -> Iterator[LauncherProcess]:
    """Yields a launcher that a plugin started."""
    with LauncherProcess() as running:
        yield running


def take_over(launcher: LauncherProcess, systemd: Systemd, watchdog_us: str = SELDOM_US) -> None:
    """Starts the unit's launcher and waits until it serves in the other launcher's place."""
    unit = launcher.spawn("--notify", systemd.address, "--watchdog-us", watchdog_us)
    before, launcher.process = launcher.process, unit
    assert before.wait(slowed(ANSWER_S)) == -signal.SIGKILL, "the one before it was ended"
    launcher.wait_ready()


def hear_ready(systemd: Systemd) -> dict[str, str]:
    while "READY" not in (message := systemd.hear()):
        pass
    return message


def test_it_takes_the_place_of_a_plugins_launcher_and_leaves_its_workers(
    launcher: LauncherProcess, systemd: Systemd
) -> None:
    with launcher.worker("a") as old:
        take_over(launcher, systemd)
        assert "that a plugin started" in systemd.hear()["STATUS"]
        message = hear_ready(systemd)
        assert message["READY"] == "1"
        assert str(launcher.log) in message["STATUS"]
        with launcher.worker("b") as new:
            assert new.ask("hello")["ok"] is True
        assert old.ask("hello")["ok"] is True


async def test_a_plugin_finds_it_and_starts_none(
    launcher: LauncherProcess, systemd: Systemd
) -> None:
    take_over(launcher, systemd)
    await LauncherLink(launcher.state_dir).ensure()
    assert launcher_pid(launcher.state_dir) == launcher.process.pid


def test_a_worker_has_nothing_of_systemd(launcher: LauncherProcess, systemd: Systemd) -> None:
    take_over(launcher, systemd)
    with launcher.worker("a") as peer:
        pid = peer.ask("hello")["pid"]
        links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"NOTIFY" not in environment
    assert len([link for link in links if link.startswith("socket:")]) == 2, "its own two"


def test_it_gives_signs_of_life_while_its_loop_turns(
    launcher: LauncherProcess, systemd: Systemd
) -> None:
    take_over(launcher, systemd, OFTEN_US)
    hear_ready(systemd)
    for _ in range(3):
        assert systemd.hear() == {"WATCHDOG": "1"}
    with launcher.worker("a") as peer:
        assert peer.ask("hello")["ok"] is True


def test_it_serves_on_when_systemd_does_not_hear(
    launcher: LauncherProcess, systemd: Systemd
) -> None:
    take_over(launcher, systemd, OFTEN_US)
    hear_ready(systemd)
    systemd.close()
    with launcher.worker("a") as peer:
        assert peer.ask("hello")["ok"] is True


def test_it_retires_for_a_successor_of_any_version(launcher: LauncherProcess) -> None:
    with launcher.connect() as peer:
        peer.send({"op": "retire", "v": 99})
        assert peer.receive() == {"ok": True}
    assert launcher.process.wait(slowed(ANSWER_S)) == -signal.SIGTERM


def test_without_a_watchdog_it_sleeps_until_somebody_connects(systemd: Systemd) -> None:
    assert Notifier().period_ms is None
    notifier = Notifier(systemd.address)
    assert notifier.period_ms is None
    notifier.alive()
    notifier.status("nothing before this")
    notifier.close()
    assert systemd.hear() == {"STATUS": "nothing before this"}


def test_a_systemd_that_does_not_read_holds_nobody_up(systemd: Systemd) -> None:
    notifier = Notifier(systemd.address, int(OFTEN_US))
    for _ in range(10_000):
        notifier.alive()
    notifier.close()
    assert systemd.hear() == {"WATCHDOG": "1"}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # from sdnotify without a connection
def test_a_systemd_that_comes_later_or_is_replaced_hears_all_the_same(tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "notify"))
    notifier.status("nobody hears this")
    for status in ("one", "two", "three"):
        listening = Systemd(tmp_path / "notify")
        notifier.status(status)
        assert listening.hear() == {"STATUS": status}
        listening.close()
        (tmp_path / "notify").unlink()
    notifier.close()


def test_a_status_may_be_in_any_script(systemd: Systemd) -> None:
    notifier = Notifier(systemd.address)
    notifier.ready("läuft in /srv/桜\udcff")
    notifier.close()
    assert systemd.hear() == {"READY": "1", "STATUS": "läuft in /srv/桜\udcff"}


def test_it_says_to_systemd_why_it_cannot_serve(systemd: Systemd) -> None:
    argv = [sys.executable, "-I", str(ROOT / "workers" / "launcher.py")]
    done = subprocess.run(
        [*argv, "--state-dir", "/nonexistent", "--notify", systemd.address],
        check=False,
        capture_output=True,
    )
    assert done.returncode == 1
    assert "/nonexistent" in systemd.hear()["STATUS"]


@pytest.mark.parametrize(
    "words",
    [
        ["--notify", "/x"],
        ["--state-dir"],
        ["--state-dir", "/x", "--watchdog-us", "soon"],
        ["--state-dir", "/x", "--dance", "1"],
        ["--state-dir", "/x", "--listen-fds", "2"],
    ],
)
def test_arguments_that_make_no_sense_are_refused(words: list[str]) -> None:
    argv = [sys.executable, "-I", str(ROOT / "workers" / "launcher.py")]
    done = subprocess.run([*argv, *words], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--watchdog-us" in done.stderr


def test_an_abstract_address_is_understood() -> None:
    address = f"cd-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{address}")
        listening.settimeout(slowed(ANSWER_S))
        notifier = Notifier(f"@{address}")
        notifier.status("heard")
        notifier.close()
        assert listening.recv(100) == b"STATUS=heard"
