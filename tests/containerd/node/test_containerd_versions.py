"""Tests of version-dependent behaviour of containerd, for each version that `./dev matrix` runs."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from containerd.api import features
from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.daemons.containerd_versions import bin_dir
from tests.support.needs import need_containerd
from tests.support.plugin.driver import Driver, launched
from tests.support.registries import images
from tests.support.registries.registry import Registry

pytestmark = pytest.mark.containerd


async def test_an_image_with_zstd_layers_runs_or_is_refused_before_they_are_fetched(
    driver: Driver, containerd: ContainerdDaemon, registry: Registry
) -> None:
    image = images.build([images.busybox_layer({"mark": ("z", 0o644)})], compression="zstd")
    [layer] = [blob for blob in image.blobs if image.blobs[blob][:2] == b"\x28\xb5"]
    reference = images.push(registry.host, "zstd", "1", image)
    able = features.of(containerd.version)[features.ZSTD]
    async with launched(driver) as session:
        look = await session.fingerprint()
        assert look.attributes["driver.containerd.zstd"] is able
        if able:
            assert await driver.output(reference, "cat /mark") == "z"
            return
        with pytest.raises(DriverError, match=r"zstd: this node has .* can since") as said:
            await driver.start(driver.task(), reference, "true")
        assert "${attr.driver.containerd.zstd} = true" in str(said.value)
        assert layer not in containerd.ctr("content", "list", "-q")


async def test_tasks_live_through_an_upgrade_of_containerd(
    tmp_path: Path, busybox_image: str
) -> None:
    """Upgrades containerd to the version of `CONTAINERD_BIN_DIR`, and keeps the shims."""
    need_containerd()
    daemon = ContainerdDaemon()
    later = daemon.version
    daemon.use(None)
    if bin_dir() is None or _release(later) <= _release(daemon.version):
        daemon.close()
        pytest.skip(f"containerd {later} is no upgrade of this machine's {daemon.version}")
    driver = Driver(daemon, tmp_path)
    script = 'trap "exit 9" TERM; echo up; while :; do sleep 0.1; done'
    try:
        daemon.start()
        async with launched(driver) as session:
            jobs = [driver.task(), driver.task()]
            handles = [await driver.start(job, busybox_image, script) for job in jobs]
            daemon.use(bin_dir())
            daemon.kill(signal.SIGTERM)
            daemon.start()
            await driver.healthy()
            await session.stop(jobs[0].id, 20, "SIGTERM")
            assert (await session.wait(jobs[0].id)).exit_code == 9
            await driver.end(jobs[0])
        async with launched(driver) as session:
            look = await session.fingerprint()
            assert look.attributes["driver.containerd.containerd_version"] == later
            await session.recover(handles[1])
            answer = await session.exec(jobs[1].id, ["/bin/echo", "inside"], 20)
            assert answer.stdout == b"inside\n"
            await session.stop(jobs[1].id, 20, "SIGTERM")
            assert (await session.wait(jobs[1].id)).exit_code == 9
            await driver.end(jobs[1])
            assert await driver.output(busybox_image, "echo new") == "new\n"
        driver.wait_clean()
    finally:
        driver.close()
        daemon.close()


def _release(version: str) -> tuple[int, ...]:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    assert numbers is not None
    return tuple(map(int, numbers.groups()))
