"""Tests in an emulated machine, which can crash, reboot and set the clock, unlike a container.

A real agent runs a task on cgroups of version 2. Takes ten to thirty minutes.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from proto.release import RELEASE
from tests.packaging import agent
from tests.packaging.agent import EXIT_CODE, Job, processes
from tests.packaging.conftest import STATE, UNIT, root_with
from tests.support.guests.guest import ROOT, need_guest
from tests.support.guests.machine import AMD64, Machine

pytestmark = [pytest.mark.packaging, pytest.mark.nomad, pytest.mark.timeout(3600)]

SUITES = ["bookworm-vm", "trixie-vm", "sid-vm"]
CRASH, PEACE = "echo b >/proc/sysrq-trigger", "systemctl reboot"
KILLED = 128 + 9
FORWARD, BACK = "date -s '+1 hour'", "date -s '-1 hour'"
# One of each object of a running task, and no leases, which are released after the start.
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
NETWORKS = (
    "ls /run/netns /var/lib/cni/results; ls /var/lib/cni/networks/nomad | grep '^[0-9]' || true"
)
ADDRESS = "nsenter --net=/run/netns/{} ip -4 -o address show dev eth0"


@pytest.fixture(scope="module", params=SUITES)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Yields a machine for each built suite, with the package and an agent with the driver."""
    suite = str(request.param)
    need_guest(suite, AMD64.qemu, "mkfs.ext4")
    package: Path = request.getfixturevalue("package")
    with root_with(package, suite) as root, TemporaryDirectory(dir=root.parent) as work:
        agent.install(root)
        subprocess.run(["chroot", str(root), "dpkg", "-i", "/root/package.deb"], check=True)
        subprocess.run(["chroot", str(root), "systemctl", "enable", "nomad"], check=True)
        page = (ROOT / "docs/networking.md").read_text()
        line = re.search(r"echo '(.+)' >(/etc/tmpfiles.d/\S+)", page)
        assert line is not None
        (root / line[2].lstrip("/")).write_text(f"{line[1]}\n")
        with Machine(root, Path(work)) as running:
            assert running.shell("stat -f -c %T /sys/fs/cgroup") == "cgroup2fs"
            running.wait(lambda: agent.release(running) == RELEASE, "the agent has no driver")
            make = f"/root/tests/make-image {agent.IMAGE} | ctr -n nomad.slice images import -"
            running.shell(make)
            yield running


def runs_once(machine: Machine, job: Job) -> None:
    """Checks that the job's task runs, and that nothing of other tasks exists."""
    machine.wait(lambda: job.state() == "running", "the task does not run")
    job.goes_on()
    assert machine.shell(OF_ONE_TASK).split() == ["1", "1", "1", "1", "1", "1", "0"]


def address_of(machine: Machine, job: Job) -> str:
    """Returns the address of the job's network, which holds the task and is the only network."""
    found = re.search(r"inet ([\d.]+)/", machine.shell(ADDRESS.format(job.alloc)))
    assert found is not None
    process = processes(machine).split()[0]
    inodes = machine.shell(f"stat -Lc %i /proc/{process}/ns/net /run/netns/{job.alloc}").split()
    assert inodes[0] == inodes[1]
    there = set(machine.shell(NETWORKS).split()) - {"/run/netns:", "/var/lib/cni/results:"}
    assert there == {job.alloc, f"nomad-{job.alloc}-eth0", found[1]}
    rules = machine.shell("iptables-save")
    assert set(re.findall(r"([\d.]+)/32", rules)) == {found[1]}
    assert len(re.findall(r"^:CNI-[0-9a-f]{24} ", rules, re.MULTILINE)) == 1
    return found[1]


def has_no_network(machine: Machine) -> None:
    """Waits until no network is left; the agent removes networks after a task's end."""
    empty = ["/run/netns:", "/var/lib/cni/results:"]
    machine.wait(lambda: machine.shell(NETWORKS).split() == empty, "a network is left")
    machine.wait(lambda: "/32" not in machine.shell("iptables-save"), "rules are left")


def goes_on_as_it_was(machine: Machine, job: Job, before: str) -> None:
    """Checks that the job's task has the same processes as before, and that every feature works."""
    job.goes_on()
    job.answers()
    assert processes(machine) == before
    assert job.codes() == []


def test_a_task_is_started_again_after_a_crash_and_after_a_reboot(machine: Machine) -> None:
    job = Job(machine, restarts=5, network="bridge")
    runs_once(machine, job)
    address_of(machine, job)
    for how in (CRASH, PEACE):
        former = machine.shell(f"touch {STATE}/former; sync; ls {STATE}/live").split()
        machine.reboot(how)
        runs_once(machine, job)
        assert "the machine was restarted" in machine.shell(NOT_FOUND)
        address_of(machine, job)
        assert not set(former) & set(machine.shell(f"ls {STATE}/live").split())
        assert machine.run("test", "-e", f"{STATE}/former").returncode == 1
    job.answers()
    job.finish()
    assert job.codes()[-1] == EXIT_CODE
    # A restart in the same place ends at once: Nomad has waited for the cgroup and found it.
    ended = len(job.codes())
    machine.wait(lambda: len(job.codes()) > ended, "a task that has ended is not started again")
    job.purge()
    has_no_network(machine)


def test_a_task_goes_on_and_is_recovered_when_the_clock_is_set(machine: Machine) -> None:
    job = Job(machine)
    before = processes(machine)
    for how in (FORWARD, BACK, BACK):
        machine.shell(how)
        goes_on_as_it_was(machine, job, before)
        machine.shell(f"systemctl restart nomad {UNIT}")
        machine.wait(lambda: agent.release(machine) == RELEASE, "the agent has no driver")
        goes_on_as_it_was(machine, job, before)
    machine.shell(FORWARD)
    job.finish()
    assert job.codes() == [EXIT_CODE]
    job.purge()


@pytest.mark.parametrize(
    ("how", "undo"), [(FORWARD, BACK), (BACK, FORWARD)], ids=["forward", "back"]
)
def test_a_stop_takes_neither_more_nor_less_time_when_the_clock_is_set(
    machine: Machine, how: str, undo: str
) -> None:
    job = Job(machine, stubborn_s=500)
    job.stop()
    machine.shell(how)
    job.goes_on()
    job.finish()
    assert job.codes() == [EXIT_CODE], "it was killed before its time"
    job.purge()
    job = Job(machine, stubborn_s=15)
    job.stop()
    machine.shell(undo)
    machine.wait(lambda: job.codes() == [KILLED], "it is not killed when its time is over")
    job.purge()
