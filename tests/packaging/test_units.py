"""Tests of the launcher's units in the guest: start, end and handover of the socket."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.packaging.conftest import SOCKET, STATE, UNIT
from tests.packaging.local_task import Task
from tests.support.guests.guest import ROOT, Guest

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

NAME = f"{STATE}/launcher.sock"
HELLO = f"""
import msgpack, socket, struct, sys
data = msgpack.packb({{"op": sys.argv[1], "v": 1}})
peer = socket.socket(socket.AF_UNIX)
peer.settimeout(20)
peer.connect("{NAME}")
peer.sendall(struct.pack(">I", len(data)) + data)
print(msgpack.unpackb(peer.recv(1000)[4:]).get("pid"))
"""


def ask(guest: Guest, what: str) -> str:
    """Sends a request to the socket's name and returns the pid in the launcher's answer."""
    return guest.shell(f"python3 - {what} <<'END'\n{HELLO}\nEND")


def is_served_by_the_unit(guest: Guest) -> None:
    assert guest.show(UNIT, "ActiveState") == "active"
    assert ask(guest, "hello") == guest.show(UNIT, "MainPID")


def test_systemd_finds_nothing_wrong_with_the_units(installed: Guest) -> None:
    assert (
        installed.shell(f"systemd-analyze verify --man=no {UNIT} {SOCKET} containerd_driver.slice")
        == ""
    )
    status = installed.shell(f"systemctl status --no-pager {UNIT}")
    assert "forks the workers of tasks" in status
    assert "containerd_driver.slice" in status


def test_the_units_exposure_is_as_documented(installed: Guest) -> None:
    said = re.search(r"exposure (?:of|is) (\d)\.(\d)", (ROOT / "docs/install.md").read_text())
    assert said is not None
    words = f"systemd-analyze security --no-pager --threshold={said[1]}{said[2]} {UNIT}"
    assert f"launcher.service: {said[1]}.{said[2]}" in installed.shell(words)


def test_the_socket_is_for_root_only(installed: Guest) -> None:
    assert installed.shell(f"stat -c '%U %a' {STATE} {NAME}") == "root 700\nroot 600"


def test_who_connects_while_the_launcher_is_stopped_has_it_started(
    installed: Guest, task: Task
) -> None:
    before = installed.show(UNIT, "MainPID")
    installed.shell(f"systemctl stop {UNIT}")
    assert ask(installed, "hello") not in {before, "0"}
    is_served_by_the_unit(installed)
    task.goes_on()
    assert task.has_its_worker()


def test_a_retired_launcher_is_started_anew_by_who_connects(installed: Guest, task: Task) -> None:
    before = installed.show(UNIT, "MainPID")
    ask(installed, "retire")
    installed.wait(lambda: installed.show(UNIT, "ActiveState") == "inactive", "it did not retire")
    assert ask(installed, "hello") != before
    is_served_by_the_unit(installed)
    task.goes_on()


def test_a_launcher_that_hangs_is_replaced(installed: Guest, task: Task) -> None:
    drop_in = f"/run/systemd/system/{UNIT}.d"
    installed.shell(
        f"mkdir -p {drop_in}; printf '[Service]\nWatchdogSec=1\n' > {drop_in}/w.conf;"
        f"systemctl daemon-reload; systemctl restart {UNIT}"
    )
    try:
        launcher = installed.show(UNIT, "MainPID")
        installed.shell(f"kill -STOP {launcher}")
        assert ask(installed, "hello") != launcher, "who asks waits for the next one"
        assert "watchdog" in installed.shell(f"journalctl -u {UNIT} --no-pager").lower()
    finally:
        installed.shell(f"rm -r {drop_in}; systemctl daemon-reload; systemctl restart {UNIT}")
    task.goes_on()
    assert task.has_its_worker()


def test_without_the_units_the_plugin_starts_a_launcher_which_they_replace(
    installed: Guest, tmp_path: Path
) -> None:
    installed.shell(f"systemctl stop {SOCKET} {UNIT}")
    task = Task(installed, tmp_path / "out")
    assert installed.show(UNIT, "ActiveState") == "inactive"
    plugins = ask(installed, "hello")
    installed.shell(f"systemctl start {SOCKET}")
    assert installed.show(UNIT, "ActiveState") == "inactive"
    assert ask(installed, "hello") != plugins
    is_served_by_the_unit(installed)
    task.goes_on()
    assert task.has_its_worker()
    assert "stopped" in task.stop()


def test_the_unit_serves_also_without_its_socket_unit(installed: Guest, task: Task) -> None:
    # Refused while the launcher runs; systemd's end of the socket is closed then.
    assert installed.run("systemctl", "restart", SOCKET).returncode != 0
    is_served_by_the_unit(installed)
    installed.shell(f"systemctl restart {UNIT}")
    is_served_by_the_unit(installed)
    assert installed.show(SOCKET, "ActiveState") == "active", "and has it back"
    task.goes_on()


def test_the_unit_serves_also_where_its_socket_has_lost_its_name(
    installed: Guest, task: Task
) -> None:
    installed.shell(f"rm {NAME}; systemctl restart {UNIT}")
    is_served_by_the_unit(installed)
    assert "systemctl stop" in installed.shell(f"cat {STATE}/launcher.log")
    task.goes_on()
    installed.shell(f"systemctl stop {UNIT} {SOCKET}; systemctl start {UNIT} {SOCKET}")
    before = installed.show(UNIT, "MainPID")
    installed.shell(f"systemctl stop {UNIT}")
    assert ask(installed, "hello") != before
    is_served_by_the_unit(installed)


def test_a_driver_with_a_state_directory_of_its_own_has_a_launcher_of_its_own(
    installed: Guest,
) -> None:
    before = installed.show(UNIT, "MainPID")
    installed.shell(
        "/root/tests/make-job 127.0.0.1:1/busybox:1 true >/root/job.json;"
        "containerd-driver run --config state_dir=/run/elsewhere /root/job.json"
    )
    assert installed.shell("pgrep -x -c cd-launcher") == "2"
    installed.shell("pkill -f '[l]auncher.py --state-dir /run/elsewhere'; rm -r /run/elsewhere")
    assert installed.show(UNIT, "MainPID") == before
