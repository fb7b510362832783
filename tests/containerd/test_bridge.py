"""`network { mode = "bridge" }` by the embedded host: real CNI plugins, real containers.

Everything happens in a network namespace of the test's own.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugin.host import cni, namespaces
from tests.support.driver import Driver, launched
from tests.support.needs import missing
from tests.support.own_network import OwnNetwork
from tests.support.plugin_dir import ROOT
from tests.support.waiting import wait_until

pytestmark = pytest.mark.containerd

DEADLINE_S = 60.0
STATIC = 18080
# Two servers of one directory; what they publish is what the task knows of its network.
SERVE = (
    "env | grep NOMAD_ >/local/env; cat /proc/net/dev >/local/dev; cp /proc/sys/kernel/hostname"
    " /local/name; busybox httpd -p 8080 -h /local; exec busybox httpd -f -p 9090 -h /local"
)


@pytest.fixture
def network() -> Iterator[OwnNetwork]:
    for program in ("iptables", "nsenter", "busybox"):
        if shutil.which(program) is None:
            missing("containerd", f"{program} is not installed")
    if not any(Path(home, "bridge").exists() for home in ("/opt/cni/bin", "/usr/lib/cni")):
        missing("containerd", "no CNI plugins (apt-get install containernetworking-plugins)")
    with OwnNetwork() as own:
        yield own


class Run:
    """`containerd-driver run --json` of a job inside the test's network."""

    def __init__(self, network: OwnNetwork, driver: Driver, directory: Path) -> None:
        self.network = network
        self._driver = driver
        self._directory = directory
        self.process: subprocess.Popen[str] | None = None
        self.alloc_ids: list[str] = []

    def start(self, groups: list[dict[str, Any]], *words: str) -> None:
        """Starts it. What it says goes to a file, so that it never blocks."""
        job = self._directory / "job.json"
        job.write_text(json.dumps({"ID": "j", "TaskGroups": groups}))
        daemon = self._driver.containerd
        with self._log().open("wb") as log:
            self.process = self.network.popen(
                [
                    *(sys.executable, "-I", str(ROOT / "plugin/main.py"), "run", str(job)),
                    *("--json", "--alloc-dir", str(self._driver.alloc_root)),
                    *("--config", f"containerd_address={daemon.address}"),
                    *("--config", f"containerd_namespace={daemon.namespace}"),
                    *("--config", f"state_dir={self._driver.state_dir}"),
                    *words,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _log(self) -> Path:
        return self._directory / "log"

    def said(self, kind: str) -> list[dict[str, Any]]:
        """What it has said of that kind."""
        lines = self._log().read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line["kind"] == kind]

    def wait_said(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """What it has said of that kind, once there is so much."""
        wait_until(
            lambda: len(self.said(kind)) >= count or self.ended(),
            DEADLINE_S,
            lambda: self._log().read_text(),
        )
        found = self.said(kind)
        assert len(found) >= count, self._log().read_text()
        self.alloc_ids = [entry.name for entry in self._driver.alloc_root.glob("*")]
        return found

    def page(self, address: str, path: str) -> str:
        """What a task's web server says, once it does."""
        return wait_until(
            lambda: self.network.fetch(address, path), DEADLINE_S, lambda: self._log().read_text()
        )

    def ended(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def stop(self) -> int:
        """Ctrl-C, and the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(DEADLINE_S)

    def finish(self) -> int:
        assert self.process is not None
        return self.process.wait(DEADLINE_S)

    def left(self) -> list[str]:
        """What is left of the allocations' networks."""
        rules, links = self.network.rules(), self.network.links()
        left = [link for link in links if link == cni.BRIDGE or link.startswith("veth")]
        for alloc_id in self.alloc_ids:
            left += [line for line in rules.splitlines() if alloc_id in line]
            left += [alloc_id] if Path(namespaces.path(alloc_id)).exists() else []
            addresses = (cni.STATE / cni.NETWORK).glob("[0-9]*")
            left += [str(file) for file in addresses if alloc_id in file.read_text()]
        return left


@pytest.fixture
def run(network: OwnNetwork, driver: Driver, tmp_path: Path) -> Iterator[Run]:
    made = Run(network, driver, tmp_path)
    yield made
    if made.process is not None and not made.ended():
        made.stop()


@pytest.fixture
def image(driver: Driver, busybox_image: str) -> str:
    """Pulled before: the registry is not in the test's network."""

    async def pull() -> None:
        async with launched(driver):
            await driver.output(busybox_image, "true")

    asyncio.run(pull())
    return busybox_image


def group(image: str, script: str, network: dict[str, Any], **more: Any) -> dict[str, Any]:
    config = {"image": image, "command": "/bin/sh", "args": ["-c", script]}
    task = {"Name": "web", "Driver": "containerd-driver", "Config": config}
    return {"Name": "g", "Networks": [network], "Tasks": [task], **more}


def variables(page: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in page.splitlines())


def test_a_task_in_a_bridge_is_reached_at_its_ports(run: Run, image: str) -> None:
    network = {
        "Mode": "bridge",
        "DynamicPorts": [{"Label": "http", "To": 8080}],
        "ReservedPorts": [{"Label": "more", "Value": STATIC, "To": 9090}],
    }
    run.start([group(image, SERVE, network)])
    ports = {line["label"]: line for line in run.wait_said("port", 2)}
    assert 20000 <= ports["http"]["port"] <= 32000
    assert (ports["http"]["to"], ports["more"]["port"], ports["more"]["to"]) == (8080, STATIC, 9090)

    dynamic = f"127.0.0.1:{ports['http']['port']}"
    env = variables(run.page(dynamic, "/env"))
    assert run.page(f"127.0.0.1:{STATIC}", "/env") == run.page(dynamic, "/env")
    assert env["NOMAD_ADDR_http"] == dynamic
    assert env["NOMAD_PORT_http"] == "8080"
    assert env["NOMAD_HOST_PORT_more"] == str(STATIC)
    # The address inside is reached directly as well, as another task of the bridge would.
    assert run.page(env["NOMAD_ALLOC_ADDR_more"], "/env") == run.page(dynamic, "/env")
    devices = run.page(dynamic, "/dev")
    assert "eth0:" in devices
    assert run.network.links().count(cni.BRIDGE) == 1

    assert run.stop() != 125
    assert run.left() == []
