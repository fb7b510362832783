"""A privileged task: capabilities, devices and a directory of the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]


def bounding_set(status: str) -> int:
    """CapBnd of a /proc/…/status."""
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return int(lines["CapBnd"], 16)


def test_a_privileged_task_has_the_hosts_capabilities_and_devices(
    cluster: Cluster, ubuntu_image: str, tmp_path: Path
) -> None:
    (tmp_path / "bind.txt").write_text("hello\n")
    task = cluster.run("privileged", image=ubuntu_image, source=str(tmp_path))
    # What the driver has itself; on a usual host, all that the kernel knows.
    ours = bounding_set(Path("/proc/self/status").read_text())
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    theirs = bounding_set(task.exec("cat", "/proc/1/status").out)
    assert theirs == ours
    assert theirs.bit_length() - 1 == min(last, ours.bit_length() - 1)
    assert "cap_sys_admin" in task.exec("capsh", "--print").out

    assert task.exec("cat", "/tmp/t1/bind.txt").out == "hello\n"
    assert task.exec("touch", "/tmp/t1/new").code != 0
    assert not (tmp_path / "new").exists()
    for device in ("/dev/loop0", "/dev/loop1"):
        assert task.exec("stat", "-c", "%F", device).out == "block special file\n"
