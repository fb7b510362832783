"""Names of the job's own in /etc/hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.clusters.cluster import Cluster

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]


def test_extra_hosts_stand_in_etc_hosts_beside_the_hosts_own(
    cluster: Cluster, ubuntu_image: str
) -> None:
    before = Path("/etc/hosts").read_text()
    task = cluster.run("extra_hosts", image=ubuntu_image)
    lines = task.exec("cat", "/etc/hosts").out.splitlines()
    # A tab, as scripts expect.
    assert "127.0.1.1\tpostgres" in lines
    assert "127.0.1.2\tredis" in lines
    assert set(before.splitlines()) <= set(lines)
    assert Path("/etc/hosts").read_text() == before
    # The host's network: the same devices.
    host = {entry.name for entry in Path("/sys/class/net").iterdir()}
    assert set(task.exec("ls", "/sys/class/net").out.split()) == host
