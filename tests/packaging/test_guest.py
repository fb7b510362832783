"""The installed package on Debian with systemd: tasks, restarts, an upgrade, the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.conftest import NEWER, PACKAGE, STATE, UNIT, newer_package
from tests.support.guest import END_S, Guest

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

COUNT = 'trap "echo stopped; exit 0" TERM; while :; do echo on; busybox sleep 0.1; done'


class Task:
    """A job that prints until it is stopped, held by a `containerd-driver run` in the guest."""

    def __init__(self, guest: Guest, out: Path) -> None:
        self._guest = guest
        self._out = out
        guest.shell(f"/root/tests/make-job 127.0.0.1:1/busybox:1 '{COUNT}' > /root/job.json")
        self._host = guest.start("containerd-driver", "run", "/root/job.json", out=out)
        self.goes_on()
        self.worker = guest.shell("pgrep -x cd-worker")

    def goes_on(self) -> None:
        """Waits for what it prints after now."""
        before = self._lines()
        self._guest.wait(lambda: self._lines() > before + 2, f"no task: {self._out.read_text()}")

    def has_its_worker(self) -> bool:
        """Whether the worker is the one that it began with."""
        return self._guest.shell("pgrep -x cd-worker") == self.worker

    def stop(self) -> str:
        """Ends it as Ctrl-C does; returns what it printed."""
        self._guest.shell("pkill -INT -of '/usr/bin/containerd-driver run'")
        self._host.wait(END_S)
        return self._out.read_text()

    def _lines(self) -> int:
        return len(self._out.read_text().splitlines()) if self._out.exists() else 0


@pytest.fixture
def task(installed: Guest, tmp_path: Path) -> Iterator[Task]:
    """One that runs; it is stopped in peace and leaves nothing."""
    running = Task(installed, tmp_path / "out")
    yield running
    assert "stopped" in running.stop()
    installed.wait(lambda: installed.shell(f"ls {STATE}/tasks") == "", "the task left something")


def test_the_packages_own_test_passes(installed: Guest) -> None:
    said = installed.shell("/root/tests/life 2>&1")
    assert said.endswith("all is well")


def test_an_upgrade_leaves_running_tasks_alone(
    installed: Guest, package: Path, task: Task, tmp_path: Path
) -> None:
    launcher = installed.show(UNIT, "MainPID")
    installed.copy(newer_package(package, tmp_path), "/root/newer.deb")
    installed.shell("dpkg -i /root/newer.deb")
    assert installed.shell("containerd-driver --version") == f"containerd-driver v{NEWER}"
    assert installed.show(UNIT, "ActiveState") == "active"
    assert installed.show(UNIT, "MainPID") != launcher
    task.goes_on()
    assert task.has_its_worker()


def test_a_launcher_that_hangs_is_replaced(installed: Guest, task: Task) -> None:
    drop_in = f"/run/systemd/system/{UNIT}.d"
    installed.shell(
        f"mkdir -p {drop_in}; printf '[Service]\nWatchdogSec=1\n' > {drop_in}/w.conf;"
        f"systemctl daemon-reload; systemctl restart {UNIT}"
    )
    try:
        launcher = installed.show(UNIT, "MainPID")
        installed.shell(f"kill -STOP {launcher}")
        installed.wait(
            lambda: (
                installed.show(UNIT, "ActiveState") == "active"
                and installed.show(UNIT, "MainPID") != launcher
            ),
            "systemd did not replace the launcher",
        )
        assert "watchdog" in installed.shell(f"journalctl -u {UNIT} --no-pager").lower()
    finally:
        installed.shell(f"rm -r {drop_in}; systemctl daemon-reload; systemctl restart {UNIT}")
    task.goes_on()
    assert task.has_its_worker()


def test_without_the_unit_the_plugin_starts_a_launcher_which_the_unit_replaces(
    installed: Guest, tmp_path: Path
) -> None:
    installed.shell(f"systemctl stop {UNIT}")
    task = Task(installed, tmp_path / "out")
    plugins = installed.shell("pgrep -x cd-launcher")  # later a zombie until the plugin looks
    installed.shell(f"systemctl start {UNIT}")
    units = installed.shell("pgrep -x -r R,S cd-launcher")
    assert units == installed.show(UNIT, "MainPID") != plugins
    task.goes_on()
    assert task.has_its_worker()
    assert "stopped" in task.stop()


def test_a_retired_launcher_is_started_anew(installed: Guest) -> None:
    launcher = installed.show(UNIT, "MainPID")
    installed.shell(f"""python3 -c 'import msgpack, socket, struct
data = msgpack.packb({{"op": "retire", "v": 1}})
peer = socket.socket(socket.AF_UNIX)
peer.connect("{STATE}/launcher.sock")
peer.sendall(struct.pack(">I", len(data)) + data)
peer.recv(100)'""")
    installed.wait(
        lambda: (
            installed.show(UNIT, "ActiveState") == "active"
            and installed.show(UNIT, "MainPID") not in {launcher, "0"}
        ),
        "systemd did not start another launcher",
    )


def test_the_plugin_is_linked_where_the_administrator_says(installed: Guest) -> None:
    installed.shell(
        f"sed -i '/^NOMAD_PLUGIN_DIR/s,=.*,=/opt/nomad/plugins,' /etc/default/{PACKAGE}"
    )
    installed.shell(f"dpkg-reconfigure {PACKAGE}")
    assert installed.shell("/opt/nomad/plugins/containerd-driver --version").startswith(
        "containerd-driver v"
    )
    installed.shell(f"dpkg -r {PACKAGE}")
    assert installed.shell("ls -A /opt/nomad/plugins") == ""


def test_removing_the_package_leaves_tasks_alone_and_purging_leaves_nothing(
    installed: Guest, tmp_path: Path
) -> None:
    task = Task(installed, tmp_path / "out")
    installed.shell(f"dpkg -r {PACKAGE}")
    task.goes_on()
    assert task.has_its_worker()
    assert "stopped" in task.stop()
    installed.wait(lambda: installed.shell(f"ls {STATE}/tasks") == "", "the task left something")
    installed.shell(f"dpkg -P {PACKAGE}; systemctl daemon-reload")
    left = installed.shell(
        f"find /etc /opt /run /usr /var /tmp -name '*{PACKAGE}*' -o -name 'containerd-driver*'"
    )
    assert left == ""
