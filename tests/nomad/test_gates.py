"""Test of the operator's gates in the configuration of a real agent."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nomad.conftest import built, started_agent
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.nomad.api import make_job
from tests.support.nomad.nomad_agent import NomadAgent
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]

GATES = """
    hardened = true
    allow_known_holes = true # the test's runtime may be old
    allow_caps = ["chown", "net_raw"]
    namespace "default" {
      volumes { allowed_paths = ["/etc/hostname"] }
    }
    namespace "other" { allow_privileged = true }
"""


@pytest.fixture
def agent(containerd: ContainerdDaemon) -> Iterator[NomadAgent]:
    """Starts an agent with gates, also for a namespace."""
    with started_agent(built("agent"), containerd, GATES) as running:
        yield running


def test_nomad_reads_the_gates_of_the_node_and_of_a_namespace(
    agent: NomadAgent, busybox_image: str
) -> None:
    nomad = agent.api
    script = "cat /host; grep CapBnd /proc/1/status"
    command = {"image": busybox_image, "command": "sh", "args": ["-c", script]}

    def job(**options: object) -> dict[str, object]:
        return make_job(f"job-{uuid.uuid4().hex[:8]}", {**command, **options}, kind="batch")

    alloc = nomad.start(job(volumes=["/etc/hostname:/host:ro"]))
    said = nomad.wait_log(alloc, "CapBnd")
    assert said.startswith(Path("/etc/hostname").read_text())
    assert said.endswith(f"{1 << 0 | 1 << 13:016x}\n")  # chown and net_raw

    def refusal(words: str, **options: object) -> None:
        refused = nomad.start(job(**options))
        wait_until(lambda: words in nomad.story(refused), 30, lambda: nomad.story(refused))

    refusal('cannot apply "pid_mode" configuration', pid_mode="host")
    refusal("volumes { allowed_paths } is /etc/hostname", volumes=["/etc:/host:ro"])
