"""A real Nomad agent with the package's plugin: a task lives through an upgrade and a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from proto.release import RELEASE
from tests.packaging.agent import install, release
from tests.packaging.conftest import NEWER, STATE, newer_package
from tests.support.guests.guest import Guest

pytestmark = [pytest.mark.packaging, pytest.mark.nomad, pytest.mark.timeout(300)]

_FOR_EVER = "while :; do echo on; busybox sleep 0.1; done"


@pytest.fixture
def agent(installed: Guest, root: Path) -> Guest:
    """Yields a guest with an agent that has the driver."""
    install(root)
    installed.shell("systemctl daemon-reload; systemctl start nomad")
    installed.wait(lambda: release(installed) == RELEASE, "the agent has no driver")
    return installed


def lines(guest: Guest) -> int:
    """Returns the number of lines that the task has printed."""
    return guest.run("nomad", "alloc", "logs", "-job", "test").stdout.count("on\n")


def goes_on(guest: Guest) -> None:
    before = lines(guest)
    guest.wait(lambda: lines(guest) > before + 2, "the task prints no more")


def test_a_task_lives_through_an_upgrade_and_the_agents_restart(
    agent: Guest, package: Path, tmp_path: Path
) -> None:
    agent.shell(f"/root/tests/make-job 127.0.0.1:1/busybox:1 '{_FOR_EVER}' > /root/job.json")
    agent.shell("nomad job run -detach -json /root/job.json")
    goes_on(agent)
    worker = agent.shell("pgrep -x cd-worker")

    agent.copy(newer_package(package, tmp_path), "/root/newer.deb")
    agent.shell("dpkg -i /root/newer.deb")
    goes_on(agent)
    assert release(agent) == RELEASE, "the running agent keeps its plugin"

    agent.shell("systemctl restart nomad")
    agent.wait(lambda: release(agent) == NEWER, "the agent has no newer driver")
    goes_on(agent)
    assert agent.shell("pgrep -x cd-worker") == worker

    agent.shell("nomad job stop -purge test")
    agent.wait(lambda: agent.shell(f"ls {STATE}/tasks") == "", "the task left something")
    agent.shell("systemctl stop nomad")
