"""Tests of a CSI plugin as a task: Nomad mounts /dev and own directories, and calls the plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nomad.api import NomadApi
from tests.nomad.conftest import built
from tests.nomad.workload import Workload
from tests.support import images
from tests.support.registry import Registry
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]


@pytest.mark.parametrize("privileged", [True, False])
def test_nomad_calls_a_csi_plugin_healthy(
    nomad: NomadApi, work: Workload, registry: Registry, privileged: bool
) -> None:
    program = built("csi").read_bytes()
    image = images.push(
        registry.host, "csi", "1", images.build([images.busybox_layer({"csi": program})])
    )
    # A node of the host, which no container has by default.
    node = next(str(path) for path in Path("/dev").iterdir() if path.name in {"kmsg", "mem"})
    job = work.job("", kind="service")
    job["TaskGroups"][0]["Tasks"][0] |= {
        "Config": {
            "image": image,
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
