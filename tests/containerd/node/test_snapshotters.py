"""Tests of every snapshotter of this machine's containerd: tasks start, with their users."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver, launched
from tests.support.registries import images
from tests.support.registries.registry import Registry

pytestmark = pytest.mark.containerd

CONFIG = """
[plugins."io.containerd.snapshotter.v1.overlayfs"]
  mount_options = ["volatile"]
[plugins."io.containerd.snapshotter.v1.blockfile"]
  scratch_file = "{base}/scratch"
  fs_type = "ext4"
"""
# From containerd 2.2 on, mounts of these snapshots refer to each other.
EROFS = """
[plugins."io.containerd.service.v1.diff-service"]
  default = ["erofs", "walking"]
"""
SCRATCH_BYTES = 32 * 1024 * 1024
USERS = {"etc/group": ("root:x:0:\nbob:x:1000:\nadm:x:44:bob\nlow:x:55:\n", 0o644)}


@pytest.fixture(scope="module")
def containerd() -> Iterator[ContainerdDaemon]:
    daemon = ContainerdDaemon()
    daemon.configure(CONFIG)
    if makes_erofs_of_layers(daemon.version):
        daemon.configure(EROFS)
    scratch = daemon.base / "scratch"
    with scratch.open("wb") as file:
        file.truncate(SCRATCH_BYTES)
    subprocess.run(["mkfs.ext4", "-q", scratch], check=True)
    with daemon:
        yield daemon


def makes_erofs_of_layers(version: str) -> bool:
    """Tells whether containerd has the erofs differ: from 2.1 on, if mkfs.erofs reads archives."""
    program = shutil.which("mkfs.erofs")
    if program is None or version.startswith("1."):
        return False
    usage = subprocess.run([program, "--help"], check=False, capture_output=True, text=True)
    return "--tar" in usage.stdout + usage.stderr


def works(containerd: ContainerdDaemon, snapshotter: str) -> bool:
    """Tells whether containerd has the snapshotter and the snapshotter's needs."""
    if snapshotter == "erofs" and shutil.which("mkfs.erofs") is None:
        return False
    listed = containerd.ctr("plugins", "ls", f"id=={snapshotter}").splitlines()
    return any(line.split()[1] == snapshotter and line.split()[-1] == "ok" for line in listed)


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native", "blockfile", "erofs"])
async def test_a_task_starts_with_its_user_on_every_snapshotter(
    driver: Driver, containerd: ContainerdDaemon, registry: Registry, snapshotter: str
) -> None:
    if not works(containerd, snapshotter):
        pytest.skip(f"containerd {containerd.version} has no {snapshotter} here")
    built = images.build([images.busybox_layer(USERS), images.layer({"top": b""})])
    image = images.push(registry.host, "snapshotters", snapshotter, built)
    async with launched(driver):
        for _ in range(2):
            job = driver.task(user="bob")
            said = await driver.output(
                image, "id -G; ls /top", job, group_add=["low"], snapshotter=snapshotter
            )
            assert said == "1000 44 55\n/top\n"
