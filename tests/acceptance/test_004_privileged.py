"""A privileged task: capabilities, devices and a directory of the host."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.clusters.cluster import Cluster
from tests.support.needs import missing

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]


def bounding_set(status: str) -> int:
    """Returns CapBnd of a /proc/…/status."""
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return int(lines["CapBnd"], 16)


@pytest.fixture
def loops() -> Iterator[tuple[Path, ...]]:
    """Yields the job's loop devices, made if the kernel has no loop module loaded yet."""
    devices = (Path("/dev/loop0"), Path("/dev/loop1"))
    made = []
    for number, device in enumerate(devices):
        if not device.exists():
            try:
                os.mknod(device, stat.S_IFBLK | 0o660, os.makedev(7, number))
            except OSError as error:
                missing("containerd", f"{device} cannot be made: {error.strerror}")
            made.append(device)
    yield devices
    for device in made:
        device.unlink()


def test_a_privileged_task_has_the_hosts_capabilities_and_devices(
    cluster: Cluster, ubuntu_image: str, tmp_path: Path, loops: tuple[Path, ...]
) -> None:
    (tmp_path / "bind.txt").write_text("hello\n")
    task = cluster.run("privileged", image=ubuntu_image, source=str(tmp_path))
    # The driver's own capabilities; on a usual host, all that the kernel knows.
    ours = bounding_set(Path("/proc/self/status").read_text())
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    theirs = bounding_set(task.exec("cat", "/proc/1/status").out)
    assert theirs == ours
    assert theirs.bit_length() - 1 == min(last, ours.bit_length() - 1)
    assert "cap_sys_admin" in task.exec("capsh", "--print").out

    assert task.exec("cat", "/tmp/t1/bind.txt").out == "hello\n"
    assert task.exec("touch", "/tmp/t1/new").code != 0
    assert not (tmp_path / "new").exists()
    for device in loops:
        assert task.exec("stat", "-c", "%F", str(device)).out == "block special file\n"
