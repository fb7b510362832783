"""A network and services of a real agent: CNI's bridge, published ports, registered addresses.

Agent, bridge and rules are in a network namespace of the test's own.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from plugin.host.network import namespaces
from tests.nomad.conftest import built, plugin_config
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.kernel.own_network import OwnNetwork
from tests.support.nomad.api import DEAF, Json, NomadApi, make_job
from tests.support.nomad.nomad_agent import NomadAgent
from tests.support.plugin.driver import Driver, launched
from tests.support.plugin.plugin_dir import make_plugin_dir
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]

NETWORK = "bridged"
SUBNET = "10.214.0.0/24"


def conflist(ipam: Path) -> Json:
    """Builds the conflist of Nomad's bridge mode, for kernels whose modules Nomad does not find."""
    addresses = {
        "type": "host-local",
        "dataDir": str(ipam),
        "ranges": [[{"subnet": SUBNET}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "ctest0", "isGateway": True, "ipMasq": True}
    return {
        "cniVersion": "0.4.0",
        "name": NETWORK,
        "plugins": [
            {**bridge, "hairpinMode": True, "ipam": addresses},
            {"type": "firewall", "backend": "iptables"},
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ],
    }


@pytest.fixture
def network() -> Iterator[OwnNetwork]:
    with OwnNetwork() as own:
        yield own


@contextlib.contextmanager
def bridged_agent(
    containerd: ContainerdDaemon, network: OwnNetwork, options: str = ""
) -> Iterator[NomadAgent]:
    """Starts an agent with a bridge for jobs.

    Args:
        containerd: the driver's containerd.
        network: the network of agent and bridge.
        options: further options of the driver's config block, in HCL.
    """
    with tempfile.TemporaryDirectory(prefix="cd-n-", dir="/run") as folder:
        state_dir = Path(folder)
        config = f"{plugin_config(containerd, state_dir)}\n{options}"
        agent = NomadAgent(built("agent"), config, state_dir, network)
        make_plugin_dir(agent.plugins)
        (agent.cni / f"{NETWORK}.conflist").write_text(json.dumps(conflist(agent.base / "ipam")))
        with agent:
            yield agent


@pytest.fixture
def bridged(containerd: ContainerdDaemon, network: OwnNetwork) -> Iterator[NomadApi]:
    """Yields an agent with a bridge for jobs."""
    with bridged_agent(containerd, network) as agent:
        yield agent.api


async def test_a_published_port_and_the_drivers_address_are_registered_and_answer(
    bridged: NomadApi, network: OwnNetwork, driver: Driver, busybox_image: str
) -> None:
    async with launched(driver):
        await driver.output(busybox_image, "true")
    script = "mkdir /www; hostname >/www/index.html; exec busybox httpd -f -p 8080 -h /www"
    command = {"image": busybox_image, "command": "sh", "args": ["-c", script]}
    job = make_job("web", command, **DEAF)
    group = job["TaskGroups"][0]
    group["Networks"] = [
        {"Mode": f"cni/{NETWORK}", "DynamicPorts": [{"Label": "http", "To": 8080}]}
    ]
    service = {"Provider": "nomad", "PortLabel": "http"}
    group["Tasks"][0]["Services"] = [
        {**service, "Name": "inside", "AddressMode": "driver"},
        {**service, "Name": "outside", "AddressMode": "auto"},
    ]
    alloc = bridged.run(job)
    found = {name: registered(bridged, name) for name in ("inside", "outside")}
    assert found["inside"]["Address"].startswith("10.214.0.")
    assert found["inside"]["Port"] == 8080
    assert found["outside"]["Address"] == "127.0.0.1"
    assert found["outside"]["Port"] >= 20000
    for service in found.values():
        address = f"{service['Address']}:{service['Port']}"
        wait_until(partial(network.fetch, address), 20, f"{address} is silent")
        assert network.fetch(address) == f"main-{alloc[:8]}\n"
    bridged.stop_and_wait("web")
    wait_until(lambda: not bridged.json("GET", "/v1/service/inside"), 20, "still registered")


async def test_a_task_that_restarts_without_its_address_fails_by_name(
    bridged: NomadApi, network: OwnNetwork, driver: Driver, busybox_image: str
) -> None:
    async with launched(driver):
        await driver.output(busybox_image, "true")
    command = {"image": busybox_image, "command": "sh", "args": ["-c", "exec sleep 600"]}
    job = make_job("lost", command, **DEAF)
    job["TaskGroups"][0]["Networks"] = [{"Mode": f"cni/{NETWORK}"}]
    alloc = bridged.run(job)
    network.run("nsenter", f"--net=/var/run/netns/{alloc}", "busybox", "ip", "link", "del", "eth0")
    bridged.restart(alloc)
    assert bridged.wait_over(alloc)["ClientStatus"] == "failed"
    assert "has lost the allocation's address" in bridged.story(alloc)


async def test_a_task_of_mode_none_restarts_without_an_address(
    bridged: NomadApi, driver: Driver, busybox_image: str
) -> None:
    async with launched(driver):
        await driver.output(busybox_image, "true")
    script = "echo begun; exec sleep 600"
    command = {"image": busybox_image, "command": "sh", "args": ["-c", script]}
    job = make_job("none", command, attempts=2, **DEAF)
    job["TaskGroups"][0]["Networks"] = [{"Mode": "none"}]
    alloc = bridged.run(job)
    bridged.restart(alloc)
    wait_until(lambda: bridged.logs(alloc).count("begun") == 2, 30, lambda: bridged.story(alloc))
    bridged.wait_state(alloc, "running")
    bridged.stop_and_wait("none")


async def test_a_network_of_the_driver_is_connected_kept_over_a_restart_and_removed(
    containerd: ContainerdDaemon, network: OwnNetwork, driver: Driver, busybox_image: str
) -> None:
    async with launched(driver):
        await driver.output(busybox_image, "true")
    script = "mkdir /www; echo here >/www/index.html; exec busybox httpd -f -p 8080 -h /www"
    command = {"image": busybox_image, "command": "sh", "args": ["-c", script]}
    job = make_job("named", command, **DEAF)
    port = {"Label": "http", "To": 8080}
    job["TaskGroups"][0]["Networks"] = [
        {"Mode": f"cni/{NETWORK}", "Hostname": "db", "DynamicPorts": [port]}
    ]
    with bridged_agent(containerd, network, 'network_creation = "driver"') as agent:
        alloc = agent.api.run(job)
        (reached,) = agent.api.alloc(alloc)["AllocatedResources"]["Shared"]["Ports"]
        address = f"127.0.0.1:{reached['Value']}"
        wait_until(partial(network.fetch, address), 20, f"{address} is silent")
        netns = Path("/var/run/netns") / alloc
        inode = netns.stat().st_ino
        agent.kill()
        agent.start()
        agent.api.wait_state(alloc, "running")
        assert network.fetch(address) == "here\n"
        assert netns.stat().st_ino == inode
        agent.api.stop_and_wait("named")
        wait_until(lambda: not netns.exists(), 20, "the namespace stays")


def test_an_agent_that_was_killed_leaves_no_network_namespace() -> None:
    alloc = str(uuid.uuid4())
    agent = NomadAgent(Path("/bin/false"), None)
    (agent.alloc_root / alloc).mkdir(parents=True)
    namespaces.add([alloc])
    netns = Path(namespaces.path(alloc))
    assert netns.exists()
    agent.close()
    assert not netns.exists()


def registered(nomad: NomadApi, name: str) -> Json:
    """Returns the only instance of a service."""
    wait_until(lambda: nomad.json("GET", f"/v1/service/{name}"), 30, f"no service {name}")
    (instance,) = nomad.json("GET", f"/v1/service/{name}")
    return dict(instance)
