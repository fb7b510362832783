"""Tests of a CSI plugin as a task: Nomad mounts /dev and own directories, and calls the plugin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nomad.conftest import built, started_agent
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.nomad.api import DEAF, ApiError, Json, NomadApi, make_job
from tests.support.nomad.leftovers import mounts_below
from tests.support.nomad.nomad_agent import NomadAgent
from tests.support.nomad.workload import Workload
from tests.support.plugin.driver import Driver, launched
from tests.support.registries import images
from tests.support.registries.registry import Registry
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]


@pytest.mark.parametrize("privileged", [True, False])
def test_nomad_calls_a_csi_plugin_healthy(
    nomad: NomadApi, work: Workload, registry: Registry, privileged: bool
) -> None:
    # A node of the host, which no container has by default.
    node = next(str(path) for path in Path("/dev").iterdir() if path.name in {"kmsg", "mem"})
    job = work.job("", kind="service")
    job["TaskGroups"][0]["Tasks"][0] |= {
        "Config": {
            "image": _plugin_image(registry),
            "command": "/csi",
            "args": ["/csi-dir/csi.sock", node],
            "privileged": privileged,
        },
        "CSIPluginConfig": {"ID": "tests", "Type": "node", "MountDir": "/csi-dir"},
    }
    alloc = nomad.run(job)
    wait_until(
        lambda: any(
            plugin["NodesHealthy"] == 1
            for plugin in nomad.json("GET", "/v1/plugins", type="csi") or ()
        ),
        60,
        lambda: nomad.story(alloc),
    )
    assert "the host's node is there" in nomad.wait_log(alloc, "host's node")


@pytest.fixture
def agent(newer_agent: Path, containerd: ContainerdDaemon) -> Iterator[NomadAgent]:
    """Starts an agent whose volumes reach tasks: mounts below its directory propagate."""
    with started_agent(newer_agent, containerd, shared=True) as started:
        yield started


async def test_a_volume_is_created_mounted_written_detached_and_mounted_again(
    agent: NomadAgent, driver: Driver, registry: Registry, busybox_image: str
) -> None:
    async with launched(driver):
        await driver.output(busybox_image, "true")
    nomad = agent.api
    plugin = nomad.run(_plugin_job(_plugin_image(registry)))

    def calls() -> list[str]:
        """Returns the plugin's calls about the volume, which succeeded."""
        lines = [line.split() for line in nomad.logs(plugin).splitlines()]
        return [words[0] for words in lines if words[1:] == ["data", "<nil>"]]

    wait_until(
        lambda: any(
            entry["ControllersHealthy"] == entry["NodesHealthy"] == 1
            for entry in nomad.json("GET", "/v1/plugins", type="csi") or ()
        ),
        60,
        lambda: nomad.story(plugin),
    )
    modes = {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
    volume = {"ID": "data", "Name": "data", "PluginID": "tests", "RequestedCapabilities": [modes]}
    nomad.json("PUT", "/v1/volume/csi/data/create", {"Volumes": [volume]})
    wait_until(lambda: calls() == ["create"], 20, lambda: str(calls()))

    def job(name: str, script: str, **options: Any) -> Json:
        config = {"image": busybox_image, "command": "sh", "args": ["-c", script]}
        return _with_volume(make_job(name, config, **options))

    first = nomad.start(job("first", "echo written >/data/file", kind="batch"))
    assert nomad.wait_over(first)["ClientStatus"] == "complete", nomad.story(first)
    cycle = ["attach", "stage", "publish", "unpublish", "unstage", "detach"]
    wait_until(lambda: calls()[-1] == "detach", 30, lambda: str(calls()))
    assert list(dict.fromkeys(calls())) == ["create", *cycle]

    second = nomad.run(job("second", "cat /data/file; exec sleep 600", **DEAF))
    assert nomad.wait_log(second, "written") == "written\n"
    agent.kill()
    agent.start()
    write = "echo after the restart >>/data/file"
    wait_until(lambda: nomad.exec(second, ["sh", "-c", write]).returncode == 0, 30, "no exec")
    assert calls().count("publish") == 2
    nomad.stop_and_wait("second")
    # After a restart Nomad 1.6 may release the volume without the controller.
    wait_until(lambda: calls().count("unstage") == 2, 30, lambda: str(calls()))
    assert not [target for target in mounts_below(agent.base) if "per-alloc" in target]

    third = nomad.start(job("third", "cat /data/file", kind="batch"))
    assert nomad.wait_over(third)["ClientStatus"] == "complete", nomad.story(third)
    assert nomad.wait_log(third, "restart") == "written\nafter the restart\n"
    wait_until(lambda: calls().count("unstage") == 3, 30, lambda: str(calls()))
    for name in ("first", "third"):
        nomad.stop_and_wait(name)
    wait_until(lambda: _deleted(nomad), 30, "the volume has claims")
    wait_until(lambda: calls()[-1] == "delete", 20, lambda: str(calls()))
    nomad.stop_and_wait("plugin")


def _deleted(nomad: NomadApi) -> bool:
    """Asks for the removal of the volume, which Nomad refuses while a task has a claim."""
    try:
        nomad.text("DELETE", "/v1/volume/csi/data/delete")
    except ApiError:
        return False
    return True


def _plugin_image(registry: Registry) -> str:
    program = built("csi").read_bytes()
    layer = images.build([images.busybox_layer({"csi": program})])
    return images.push(registry.host, "csi", "1", layer)


def _plugin_job(image: str) -> Json:
    config = {
        "image": image,
        "command": "/csi",
        "args": ["/csi-dir/csi.sock", "/dev/null", "/alloc/data/volumes"],
        "privileged": True,
    }
    csi = {"ID": "tests", "Type": "monolith", "MountDir": "/csi-dir"}
    return make_job("plugin", config, CSIPluginConfig=csi, **DEAF)


def _with_volume(job: Json) -> Json:
    """Gives the job's task the volume at /data."""
    group = job["TaskGroups"][0]
    modes = {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
    group["Volumes"] = {"v": {"Name": "v", "Type": "csi", "Source": "data", **modes}}
    group["Tasks"][0]["VolumeMounts"] = [{"Volume": "v", "Destination": "/data"}]
    return job
