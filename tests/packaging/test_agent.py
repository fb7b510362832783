"""A real Nomad agent with the package's plugin: a task lives through an upgrade and a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from proto.release import RELEASE
from tests.nomad.build import BuildError, build
from tests.packaging.conftest import NEWER, STATE, newer_package
from tests.support.guest import Guest
from tests.support.needs import missing

pytestmark = [pytest.mark.packaging, pytest.mark.nomad, pytest.mark.timeout(300)]

_FOR_EVER = "while :; do echo on; busybox sleep 0.1; done"


@pytest.fixture
def agent(installed: Guest, tmp_path: Path) -> Guest:
    """A guest with an agent that has the driver."""
    try:
        installed.copy(build("agent"), "/usr/local/bin/nomad")
    except BuildError as error:
        missing("nomad", str(error))
    for name, text in (("agent.hcl", _CONFIG), ("nomad.service", _UNIT)):
        (tmp_path / name).write_text(text)
    installed.copy(tmp_path / "agent.hcl", "/root/agent.hcl")
    installed.copy(tmp_path / "nomad.service", "/etc/systemd/system/nomad.service")
    installed.shell("chmod 755 /usr/local/bin/nomad; systemctl daemon-reload")
    installed.shell("systemctl start nomad")
    installed.wait(lambda: release(installed) == RELEASE, "the agent has no driver")
    return installed


def release(guest: Guest) -> str:
    """The driver's, as the agent's node says it."""
    words = "nomad node status -self -verbose | grep -E '^driver.containerd-driver.version'"
    return guest.run("sh", "-c", words).stdout.rpartition("= ")[2].strip()


def lines(guest: Guest) -> int:
    """How many the task has printed."""
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
