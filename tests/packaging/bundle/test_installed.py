"""The archive on Debian without Python, with systemd: installation, upgrade, downgrade, removal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proto.release import RELEASE
from tests.packaging.bundle.bare_guest import (
    BARE_SUITES,
    HOME,
    IMPORT,
    NEWER,
    NEWER_HOME,
    PREFIX,
    bare_root,
)
from tests.packaging.conftest import SOCKET, STATE, UNIT
from tests.packaging.local_task import Task, put_job
from tests.support.guests.guest import Guest, unified
from tests.support.needs import missing

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

PROGRAM = f"{PREFIX}/current/plugins/containerd-driver"
LEFT = """
find /etc /opt /run /usr /var -name '*nomad-driver-containerd*' -o -name 'containerd*driver*'
"""


@pytest.fixture(scope="module", params=BARE_SUITES)
def root(request: pytest.FixtureRequest, archive: Path) -> Iterator[Path]:
    """Yields a root of each suite without Python."""
    with bare_root(str(request.param), archive) as made:
        yield made


@pytest.fixture(scope="module")
def guest(root: Path) -> Iterator[Guest]:
    """Starts a guest."""
    if "sid" in (root / "etc" / "debian_version").read_text() and not unified():
        missing("packaging", "systemd of sid boots on cgroups of version 2 only")
    with Guest(root) as running:
        assert running.run("sh", "-c", "command -v python3").returncode != 0
        running.shell(f"systemctl is-active containerd; {IMPORT}")
        yield running


@pytest.fixture
def installed(guest: Guest) -> Guest:
    """Installs the archive in the guest."""
    guest.shell(f"{HOME}/install.sh")
    assert guest.shell("containerd-driver --version") == f"containerd-driver v{RELEASE}"
    return guest


@pytest.fixture
def task(installed: Guest, tmp_path: Path) -> Iterator[Task]:
    """Starts a task, and checks that the task and its first worker live until an orderly stop."""
    running = Task(installed, tmp_path / "out")
    yield running
    running.goes_on()
    assert running.has_its_worker()
    assert "stopped" in running.stop()
    installed.wait(lambda: installed.shell(f"ls {STATE}/tasks") == "", "the task left something")


def unit_serves(guest: Guest) -> str:
    """Checks that the launcher's unit runs from the installed release; returns the release."""
    assert guest.show(UNIT, "ActiveState") == "active"
    assert guest.show(SOCKET, "ActiveState") == "active"
    program = guest.shell(f"readlink /proc/{guest.show(UNIT, 'MainPID')}/exe")
    assert program.startswith(f"{PREFIX}/")
    return program.removeprefix(f"{PREFIX}/").partition("/")[0]


def test_an_installed_archive_runs_tasks(installed: Guest, tmp_path: Path) -> None:
    assert unit_serves(installed) == RELEASE
    installed.shell("containerd-driver doctor")
    put_job(installed, "echo hello; exit 7", tmp_path)
    done = installed.run("containerd-driver", "run", "--plugin", PROGRAM, "/root/job.json")
    assert done.returncode == 7, done.stdout
    assert "hello" in done.stdout
    units = f"{UNIT} {SOCKET} containerd_driver.slice"
    said = installed.shell(f"systemd-analyze verify --man=no {units} 2>&1").splitlines()
    # systemd of Debian 11 does not know PrivateIPC, and goes on without.
    assert [line for line in said if "Unknown key name 'PrivateIPC'" not in line] == []


def test_the_worker_comes_from_the_unit_and_outlives_its_restart(
    installed: Guest, task: Task
) -> None:
    assert UNIT in installed.shell(f"cat /proc/{task.worker}/cgroup")
    assert "LD_LIBRARY_PATH" not in installed.shell(f"tr '\\0' '\\n' </proc/{task.worker}/environ")
    before = installed.show(UNIT, "MainPID")
    installed.shell(f"systemctl restart {UNIT}")
    assert installed.show(UNIT, "MainPID") != before


def test_upgrade_and_downgrade_leave_running_tasks_alone(installed: Guest, task: Task) -> None:
    installed.shell(f"{NEWER_HOME}/install.sh")
    assert installed.shell("containerd-driver --version") == f"containerd-driver v{NEWER}"
    assert unit_serves(installed) == NEWER
    # The worker and the run of the task still use the first release.
    assert installed.shell(f"ls -d {PREFIX}/{RELEASE}")
    task.goes_on()
    installed.shell(f"{HOME}/install.sh")
    assert unit_serves(installed) == RELEASE
    assert installed.run("ls", "-d", f"{PREFIX}/{NEWER}").returncode != 0, "no process uses it"


def test_the_installer_says_what_it_does_and_removes_everything(
    guest: Guest, tmp_path: Path
) -> None:
    before = guest.shell(LEFT)
    said = guest.shell(f"{HOME}/install.sh --plugin-dir /opt/nomad/plugins")
    made = set(guest.shell(LEFT).splitlines()) - set(before.splitlines())
    outside = {path for path in made if not path.startswith((PREFIX, "/run", "/sys", "/proc"))}
    wanted = {path for path in outside if ".wants/" not in path}
    assert "/opt/nomad/plugins/containerd-driver" in wanted
    assert {path for path in wanted if path not in said} == set()
    assert guest.shell("/opt/nomad/plugins/containerd-driver --version").endswith(RELEASE)
    task = Task(guest, tmp_path / "out")
    assert "tasks still run" in guest.shell(f"{PREFIX}/current/install.sh --uninstall")
    task.goes_on()
    assert task.has_its_worker()
    assert "stopped" in task.stop()
    guest.wait(lambda: guest.shell(f"ls {STATE}/tasks") == "", "the task left something")
    guest.shell(f"{HOME}/install.sh; {HOME}/install.sh --uninstall")
    assert guest.shell(LEFT) == ""
    assert guest.shell("ls -A /opt/nomad/plugins") == ""
