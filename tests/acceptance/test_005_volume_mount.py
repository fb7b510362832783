"""Acceptance tests of a host volume at two places, one of them read-only."""

from __future__ import annotations

import pytest

from tests.acceptance.clusters.cluster import VOLUME, Cluster

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]


def test_a_host_volume_is_written_where_it_may_be_and_only_there(
    cluster: Cluster, ubuntu_image: str
) -> None:
    volume = cluster.base / VOLUME
    (volume / "hello.txt").write_text("hello\n")
    task = cluster.run("volume_mount", image=ubuntu_image)
    assert task.exec("cat", "/tmp/t1/hello.txt").out == "hello\n"
    assert task.exec("cat", "/tmp/read_only_target/hello.txt").out == "hello\n"

    refused = task.exec("touch", "/tmp/read_only_target/refused.txt")
    assert refused.code != 0
    assert "Read-only file system" in refused.out + refused.err
    assert not (volume / "refused.txt").exists()

    assert task.exec("touch", "/tmp/t1/written.txt").code == 0
    assert (volume / "written.txt").exists()
    task.purge()
    assert (volume / "hello.txt").read_text() == "hello\n"
