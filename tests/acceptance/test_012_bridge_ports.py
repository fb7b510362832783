"""Acceptance tests of a web server on a bridge, published on a port of the host.

Host, bridge and rules are in a network namespace of the test. The plugin host without an agent is
left out: making the network is the agent's work.

Host, bridge and rules are in a network namespace of the test's own, and the plugin host without
an agent is not here: it is the agent's work to make the network.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.clusters.agent_cluster import AgentCluster
from tests.acceptance.clusters.cluster import example
from tests.acceptance.conftest import driver_config
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.kernel.own_network import OwnNetwork
from tests.support.needs import missing
from tests.support.plugin.driver import Driver, launched
from tests.support.plugin.host_run import Run
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]


@pytest.fixture
def network() -> Iterator[OwnNetwork]:
    """Yields the network of the host in these tests."""
    for name in ("iptables", "nsenter", "busybox"):
        if shutil.which(name) is None:
            missing("containerd", f"{name} is not installed: ./dev setup")
    if not Path("/usr/lib/cni/bridge").exists():
        missing("containerd", "no CNI plugins (apt-get install containernetworking-plugins)")
    with OwnNetwork() as own:
        yield own


@pytest.fixture
def image(driver: Driver, busybox_image: str) -> str:
    """Returns an image that is pulled in advance: the test's network has no registry."""

    async def pull() -> None:
        async with launched(driver):
            await driver.output(busybox_image, "true")

    asyncio.run(pull())
    return busybox_image


def page(network: OwnNetwork, port: int) -> str:
    """Returns the server's page at a port of the host."""
    at = f"127.0.0.1:{port}"
    return wait_until(lambda: network.fetch(at), 30, f"{at} is silent")


def heard(run: Run) -> list[str]:
    """Returns the answers that the group's other task received on loopback, without failures."""
    return [line["line"] for line in run.said("log") if line["stream"] == "stdout"]


def test_run_publishes_the_port_and_takes_all_back(
    network: OwnNetwork, driver: Driver, image: str, tmp_path: Path
) -> None:
    run = Run(network, driver, tmp_path)
    run.start_file(example("bridge"), "--var", f"image={image}")
    try:
        (told,) = run.wait_said("port")
        port = told["port"]
        text = page(network, port)
        assert re.fullmatch(
            rf"hello from bridge.web\[0\], which is 127.0.0.1:{port} outside\n", text
        )
        wait_until(lambda: heard(run) == [text.strip()], 30, lambda: str(heard(run)))
    finally:
        run.stop()
    assert network.fetch(f"127.0.0.1:{port}") == ""
    assert run.left() == []


@pytest.mark.nomad
def test_an_agent_publishes_the_port(
    agent_binary: Path, network: OwnNetwork, containerd: ContainerdDaemon, image: str
) -> None:
    cluster = AgentCluster(agent_binary, driver_config(containerd), network)
    try:
        task = cluster.run("bridge", image=image)
        (told,) = cluster.api.alloc(task.alloc_id)["AllocatedResources"]["Shared"]["Ports"]
        text = page(network, told["Value"])
        assert f"which is 127.0.0.1:{told['Value']} outside" in text
        visitor = {"stream": "stdout", "task": "visitor"}
        wait_until(lambda: text in cluster.api.logs(task.alloc_id, **visitor), 30, "no visitor")
        task.purge()
        assert network.fetch(f"127.0.0.1:{told['Value']}") == ""
    finally:
        cluster.close()
