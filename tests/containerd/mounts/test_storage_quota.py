"""Limits of a container's files by project quotas, on a file system of the tests' own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.model.ownership import LABEL_QUOTA
from containerd.api.client import Containerd
from containerd.rootfs import quota
from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.needs import missing, need_containerd
from tests.support.plugin.driver import MIB, Driver, launched

pytestmark = pytest.mark.containerd


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerdDaemon]:
    """Starts a containerd whose root is an ext4 that enforces project quotas."""
    need_containerd()
    if shutil.which("mkfs.ext4") is None:
        missing("containerd", "mkfs.ext4 is not installed")
    image = tmp_path_factory.mktemp("disk") / "disk"
    subprocess.run(["truncate", "-s", "96M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-O", "quota,project", image], check=True)
    containerd = ContainerdDaemon()
    root = containerd.base / "root"
    root.mkdir()
    command = ["mount", "-o", "loop,prjquota", str(image), str(root)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        shutil.rmtree(containerd.base)
        pytest.skip(f"this kernel has no project quotas of ext4: {mounted.stderr}")
    with containerd:
        yield containerd


@pytest.fixture
def limited(daemon: ContainerdDaemon, tmp_path: Path) -> Iterator[Driver]:
    made = Driver(daemon, tmp_path)
    try:
        yield made
        made.wait_clean()
    finally:
        made.close()


async def test_a_task_writes_as_much_as_its_storage_size(
    limited: Driver, busybox_image: str
) -> None:
    fill = "dd if=/dev/zero of=/x/f bs=64k 2>&1 | tail -1 >/dev/null; du -k /x | cut -f1"
    script = f"mkdir /x; {fill}; df -k / | tail -1; rm /x/f; echo more >/x/g && cat /x/g"
    async with launched(limited):
        for size in (8, 16):
            said = await limited.output(busybox_image, script, storage_opt={"size": f"{size}M"})
            used, disk, after = said.splitlines()
            assert (size - 2) * 1024 < int(used) <= size * 1024
            assert int(disk.split()[1]) <= size * 1024
            assert after == "more"


async def test_the_limit_ends_with_the_task(
    limited: Driver, daemon: ContainerdDaemon, busybox_image: str
) -> None:
    async with launched(limited):
        job = limited.task()
        await limited.start(job, busybox_image, "sleep 1000", storage_opt={"size": "8M"})
        client = Containerd(daemon.address, daemon.namespace)
        (record,) = await client.containers.list()
        await client.close()
        made = record.labels[LABEL_QUOTA]
        assert _limit(made) == 8 * MIB
        await limited.session.stop(job.id, 0, "SIGKILL")
        await limited.end(job)
        assert _limit(made) == 0


def _limit(made: str) -> int:
    """Returns the limit of a project in bytes."""
    project, _, place = made.partition(" ")
    directory = os.open(place, os.O_RDONLY)
    try:
        return quota.usage(directory, int(project))[0]
    finally:
        os.close(directory)


async def test_a_file_system_without_quotas_refuses_the_size_before_the_pull(
    driver: Driver,
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        config = {"image": "127.0.0.1:1/none:1", "storage_opt": {"size": "8M"}}
        with pytest.raises(DriverError, match="does not enforce quotas of projects"):
            await session.start(job.config, config)
        driver.wait_clean()
