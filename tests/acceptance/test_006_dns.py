"""Name servers of the group, and kernel parameters of a network of the task's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.clusters.cluster import Cluster

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]

SOMAXCONN, FORWARD = "net/core/somaxconn", "net/ipv4/ip_forward"


def test_names_are_asked_of_the_groups_servers_and_the_network_is_the_tasks_own(
    cluster: Cluster, ubuntu_image: str
) -> None:
    of_the_host = [Path(f"/proc/sys/{name}").read_text() for name in (SOMAXCONN, FORWARD)]
    task = cluster.run("dns", image=ubuntu_image)
    lines = task.exec("cat", "/etc/resolv.conf").out.splitlines()
    wanted = {
        "nameserver 127.0.0.1",
        "nameserver 127.0.0.2",
        "search internal.corp",
        "options ndots:2",
    }
    assert wanted <= set(lines)
    assert [line for line in lines if line.startswith("nameserver")] == sorted(wanted)[:2]
    assert task.exec("cat", f"/proc/sys/{SOMAXCONN}").out == "16384\n"
    assert task.exec("cat", f"/proc/sys/{FORWARD}").out == "1\n"
    assert of_the_host == [Path(f"/proc/sys/{name}").read_text() for name in (SOMAXCONN, FORWARD)]
