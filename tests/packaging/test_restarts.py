"""Tests that a real Nomad agent's task keeps running through restarts and kills nearby."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proto.release import RELEASE
from tests.packaging import agent
from tests.packaging.agent import EXIT_CODE, Job, processes
from tests.packaging.conftest import PACKAGE, UNIT
from tests.support.guests.guest import Guest
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.packaging, pytest.mark.nomad, pytest.mark.timeout(300)]

PAUSE_S = 4.0
UNITS = ["nomad.service", "containerd.service", UNIT]


@pytest.fixture(scope="module")
def host(guest: Guest, root: Path) -> Iterator[Guest]:
    """Yields a guest with the package and an agent that has the driver."""
    agent.install(root)
    guest.shell(
        "dpkg -i /root/package.deb; namespace=nomad;"
        " [ ! -e /sys/fs/cgroup/cgroup.controllers ] || namespace=nomad.slice;"
        f" /root/tests/make-image {agent.IMAGE} | ctr -n $namespace images import -"
    )
    guest.shell("systemctl daemon-reload; systemctl start nomad")
    guest.wait(lambda: agent.release(guest) == RELEASE, "the agent has no driver")
    yield guest
    guest.shell("systemctl stop nomad")


def has_come_back(guest: Guest, unit: str, before: str) -> bool:
    return guest.show(unit, "ActiveState") == "active" and guest.show(unit, "MainPID") != before


@pytest.fixture
def job(host: Guest) -> Iterator[Job]:
    """Yields a counting task, and checks at the end that the same task counts without a gap."""
    running = Job(host)
    running.goes_on()
    before = processes(host)
    yield running
    running.goes_on()
    assert processes(host) == before
    running.answers()
    running.finish()
    assert running.codes() == [EXIT_CODE]
    printed = running.lines()
    assert printed == list(range(1, len(printed) + 1)), "lines are lost or doubled"
    running.purge()


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.usefixtures("job")
def test_a_task_lives_through_a_restart_of(host: Guest, unit: str) -> None:
    before = host.show(unit, "MainPID")
    host.shell(f"systemctl restart {unit}")
    host.wait(lambda: has_come_back(host, unit, before), f"{unit} is not back")


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.usefixtures("job")
def test_a_task_lives_through_the_death_of(host: Guest, unit: str) -> None:
    before = host.show(unit, "MainPID")
    host.shell(f"kill -9 {before}")
    host.wait(lambda: has_come_back(host, unit, before), f"{unit} is not back")


@pytest.fixture
def watched_closely(host: Guest) -> Iterator[None]:
    """Sets a watchdog that waits for a second."""
    drop_in = f"/run/systemd/system/{UNIT}.d"
    host.shell(
        f"mkdir -p {drop_in}; printf '[Service]\nWatchdogSec=1\n' > {drop_in}/w.conf;"
        f"systemctl daemon-reload; systemctl restart {UNIT}"
    )
    yield
    host.shell(f"rm -r {drop_in}; systemctl daemon-reload; systemctl restart {UNIT}")


@pytest.mark.usefixtures("job", "watched_closely")
def test_a_task_lives_through_the_watchdogs_end_of_a_launcher_that_hangs(host: Guest) -> None:
    before = host.show(UNIT, "MainPID")
    host.shell(f"kill -STOP {before}")
    host.wait(lambda: has_come_back(host, UNIT, before), "the launcher was not replaced")
    assert "watchdog" in host.shell(f"journalctl -u {UNIT} --no-pager").lower()


@pytest.mark.usefixtures("job", "watched_closely")
def test_a_task_lives_through_a_pause_that_is_longer_than_the_watchdogs_time(host: Guest) -> None:
    with host.paused():
        until = time.monotonic() + PAUSE_S
        wait_until(lambda: time.monotonic() > until, 2 * PAUSE_S, "time stands still")
    host.wait(lambda: host.show(UNIT, "ActiveState") == "active", "no launcher")
    host.wait(lambda: agent.release(host) == RELEASE, "the agent has no driver")


@pytest.mark.usefixtures("job")
def test_a_task_lives_through_a_restart_of_all_at_once(host: Guest) -> None:
    # Not `restart`: systemd restarts no socket whose service still runs.
    units = f"{PACKAGE}-launcher.socket {' '.join(UNITS)}"
    host.shell(f"systemctl stop {units}; systemctl start {units}")
    host.wait(lambda: agent.release(host) == RELEASE, "the agent has no driver")
