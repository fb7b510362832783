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

# Nothing here asks beyond the guest's loopback, which is all the network that it has.
_CONFIG = """\
name = "guest"
data_dir = "/opt/nomad/data"
plugin_dir = "/usr/lib/nomad-driver-containerd/plugins"
bind_addr = "127.0.0.1"
advertise {
  http = "127.0.0.1"
  rpc = "127.0.0.1"
  serf = "127.0.0.1"
}
disable_update_check = true
disable_anonymous_signature = true
server {
  enabled = true
  bootstrap_expect = 1
}
client {
  enabled = true
  network_interface = "lo"
  cpu_total_compute = 8000
  memory_total_mb = 4096
  options = {
    "fingerprint.denylist" = "env_aws,env_azure,env_digitalocean,env_gce,consul,vault"
  }
}
consul {
  auto_advertise = false
  client_auto_join = false
  server_auto_join = false
}
plugin "containerd-driver" {
  config {}
}
"""
_UNIT = """\
[Service]
ExecStart=/usr/local/bin/nomad agent -config /root/agent.hcl
KillMode=process
"""
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
