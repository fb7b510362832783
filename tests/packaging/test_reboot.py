"""The machine restarts under a running task: a real agent starts it again, nothing old is left.

On an emulated machine with cgroups of version 2: five to ten minutes.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proto.release import RELEASE
from tests.packaging import agent
from tests.packaging.agent import EXIT_CODE, Job
from tests.packaging.conftest import STATE
from tests.support.guest import ROOT, overlay, root_of
from tests.support.machine import QEMU, Machine
from tests.support.needs import missing

pytestmark = [pytest.mark.packaging, pytest.mark.nomad, pytest.mark.timeout(3600)]

SUITE = "bookworm-vm"
CRASH, PEACE = "echo b >/proc/sysrq-trigger", "systemctl reboot"
# One of each of what a task has, and no leases, which are let go once it runs.
OF_ONE_TASK = f"""
ls {STATE}/tasks | wc -l
ctr -n nomad.slice containers ls -q | wc -l
ctr -n nomad.slice tasks ls -q | wc -l
ctr -n nomad.slice snapshots ls | grep -cw Active
grep -c 'io.containerd.runtime.v2.task.*/rootfs' /proc/mounts
pgrep -xc cd-worker
ctr -n nomad.slice leases ls -q | wc -l
"""
NOT_FOUND = "journalctl -b -u nomad --no-pager | grep 'task not found for given id'"


@pytest.fixture(scope="module")
def machine(package: Path) -> Iterator[Machine]:
    """One with the package and an agent that has its driver."""
    for program in (QEMU, "mkfs.ext4"):
        if shutil.which(program, path="/usr/bin:/usr/sbin:/bin:/sbin") is None:
            missing("packaging", f"{program} is not installed: ./dev guest {SUITE} brings it")
    if not root_of(SUITE).is_dir():
        missing("packaging", f"there is no guest: ./dev guest {SUITE} makes it")
    with overlay(SUITE) as root, tempfile.TemporaryDirectory(dir=root.parent) as work:
        agent.install(root)
        shutil.copytree(ROOT / "packaging/debian/tests", root / "root/tests")
        shutil.copy(package, root / "root/package.deb")
        subprocess.run(["chroot", str(root), "dpkg", "-i", "/root/package.deb"], check=True)
        subprocess.run(["chroot", str(root), "systemctl", "enable", "nomad"], check=True)
        with Machine(root, Path(work)) as running:
            yield running


def runs_once(machine: Machine, job: Job) -> None:
    """The job's task runs, and only what is its own is there."""
    machine.wait(lambda: job.state() == "running", "the task does not run")
    job.goes_on()
    assert machine.shell(OF_ONE_TASK).split() == ["1", "1", "1", "1", "1", "1", "0"]


def test_a_task_is_started_again_after_a_crash_and_after_a_reboot(machine: Machine) -> None:
    assert machine.shell("stat -f -c %T /sys/fs/cgroup") == "cgroup2fs"
    machine.wait(lambda: agent.release(machine) == RELEASE, "the agent has no driver")
    machine.shell(f"/root/tests/make-image {agent.IMAGE} | ctr -n nomad.slice images import -")
    job = Job(machine, restarts=5)
    runs_once(machine, job)
    for how in (CRASH, PEACE):
        machine.shell("sync")
        machine.reboot(how)
        runs_once(machine, job)
        assert "the machine was restarted" in machine.shell(NOT_FOUND)
    job.answers()
    job.finish()
    assert job.codes()[-1] == EXIT_CODE
    # Started again in its place it ends at once: Nomad has waited for its cgroup and found it.
    ended = len(job.codes())
    machine.wait(lambda: len(job.codes()) > ended, "a task that has ended is not started again")
    job.purge()
