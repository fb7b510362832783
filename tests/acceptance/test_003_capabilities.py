"""Acceptance tests of added and dropped capabilities, and of a read-only root file system."""

from __future__ import annotations

import pytest

from tests.acceptance.clusters.cluster import Cluster

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]


def test_capabilities_are_added_and_dropped_and_the_root_is_read_only(
    cluster: Cluster, ubuntu_image: str
) -> None:
    task = cluster.run("capabilities", image=ubuntu_image)
    printed = task.exec("capsh", "--print").out
    for line in printed.splitlines():
        for name in ("cap_sys_admin", "cap_ipc_owner", "cap_ipc_lock", "cap_kill"):
            assert name in line
        for name in ("cap_chown", "cap_sys_chroot", "cap_dac_override", "cap_sys_time"):
            assert name not in line
    touched = task.exec("touch", "/tmp/file.txt")
    assert touched.code != 0
    assert "Read-only file system" in touched.out + touched.err
