"""Tests of a full disk of containerd: errors name the disk, and failed calls leave nothing."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.kernel.scarce import SmallDisk
from tests.support.plugin.driver import Driver, launched
from tests.support.registries import images
from tests.support.registries.registry import Registry
from tests.support.waiting import until

pytestmark = pytest.mark.containerd
MIB = 1 << 20


@pytest.fixture(scope="module")
def disk() -> Iterator[SmallDisk]:
    """Mounts the disk of the containerd `daemon`."""
    daemon = ContainerdDaemon()
    root = daemon.base / "root"
    root.mkdir()
    place = SmallDisk(root, "24m", 2000)
    with daemon:
        place.daemon = daemon
        yield place


@pytest.fixture
def driver(disk: SmallDisk, tmp_path: Path) -> Iterator[Driver]:
    """Yields a driver on the full disk, and checks that no task left anything."""
    assert disk.daemon is not None
    made = Driver(disk.daemon, tmp_path)
    yield made
    disk.free()
    try:
        made.wait_clean()
    finally:
        made.close()


def push(registry: Registry, name: str, *entries: dict[str, images.Entry]) -> str:
    layers = [images.busybox_layer(), *map(images.layer, entries)]
    return images.push(registry.host, name, "1", images.build(layers))


@pytest.mark.parametrize("what", ["blob", "layer", "files"])
async def test_a_pull_that_does_not_fit_names_the_disk_and_leaves_nothing(
    driver: Driver, disk: SmallDisk, registry: Registry, what: str
) -> None:
    files: dict[str, images.Entry] = {
        "blob": {"random": (secrets.token_bytes(24 * MIB).hex(), 0o644)},
        "layer": {"zeros": ("\0" * (64 * MIB), 0o644)},
        "files": {f"f{number}": ("", 0o644) for number in range(3000)},
    }[what]  # type: ignore[assignment]
    too_big = push(registry, f"too-big-{what}", files)
    daemon = disk.daemon
    assert daemon is not None
    async with launched(driver) as session:
        free = disk.free_bytes()
        job = driver.task()
        with pytest.raises(DriverError) as failed:
            await driver.start(job, too_big)
        assert failed.value.recoverable
        text = str(failed.value)
        assert text.startswith(f"Error in pulling image {too_big}: containerd cannot ")
        assert "no space left on device" in text
        assert f"make room on the disk of {daemon.base}/root/" in text
        assert daemon.ctr("images", "list", "-q") == ""
        assert disk.free_bytes() > free - MIB
        assert daemon.ctr("content", "active").splitlines()[1:] == []
        assert daemon.leftovers() == []
        await session.destroy(job.id)


async def test_a_full_disk_fails_starts_by_name_and_leaves_a_running_task_alone(
    driver: Driver, disk: SmallDisk, registry: Registry
) -> None:
    image = push(registry, "fits")
    async with launched(driver) as session:
        runs, late = driver.task("runs"), driver.task("late")
        await driver.start(runs, image, "trap 'exit 7' TERM; echo on; while :; do sleep 0.1; done")
        await until(lambda: runs.out, 10, "no output")
        disk.fill_inodes()
        with pytest.raises(DriverError) as failed:
            await driver.start(late, image, "exit 0")
        assert failed.value.recoverable
        assert "containerd cannot prepare snapshot" in str(failed.value)
        assert "make room on the disk of /run/" in str(failed.value)
        assert (await session.exec(runs.id, ["/bin/echo", "here"])).stdout == b"here\n"
        await session.stop(runs.id)
        assert (await session.wait(runs.id)).exit_code == 7
        await driver.end(runs)
        disk.free()
        assert await driver.output(image, "echo again") == "again\n"
