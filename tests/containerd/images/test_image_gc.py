"""Tests of the removal of unused images, counted from a real containerd."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from actors.images.collector import PULLED, UNUSED_SINCE, ImageCollector
from containerd.api.client import Containerd
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver, launched
from tests.support.registries import images
from tests.support.registries.archives import docker_files, tar_of
from tests.support.registries.image_store import Images
from tests.support.registries.registry import Registry
from tests.support.waiting import until
from workers import identity

pytestmark = pytest.mark.containerd

DELAY_S = 3600.0


class Clock:
    """Seconds that the test moves on."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.boot = "first"

    def __call__(self) -> float:
        return self.seconds


class Sweeps:
    """Sweeps like the ImageActor's sweeps, each with a new collector, as after a restart."""

    def __init__(self, daemon: ContainerdDaemon) -> None:
        self.daemon = daemon
        self.clock = Clock()

    def sweep(self, *busy: str, remove: bool = True) -> set[str]:
        """Inspects the images, removes due images, and returns the removed names."""

        async def run(containerd: Containerd) -> set[str]:
            collector = ImageCollector(containerd, DELAY_S, self.clock, self.clock.boot)
            names = await collector.due(busy)
            for name in names if remove else ():
                await collector.remove(name)
            return set(names)

        return self.daemon.ask(run)

    def label(self, name: str, key: str, value: str) -> None:
        """Sets a label of an image."""
        self.daemon.ask(lambda containerd: containerd.images.set_label(name, key, value))


@pytest.fixture
def sweeps(containerd: ContainerdDaemon) -> Sweeps:
    """Sweeps by a clock; no image of another test counts."""
    for name in containerd.ctr("images", "list", "-q").split():
        containerd.ctr("images", "remove", name)
    return Sweeps(containerd)


def pulled(store: Images, registry: Registry, name: str) -> str:
    """Pulls an image for the test and returns the name."""
    image = images.build([images.layer({"hello": name.encode()})])
    return store.get(images.push(registry.host, name, "1", image)).name


def test_an_image_goes_the_delay_after_its_last_use_and_with_all_its_content(
    store: Images, sweeps: Sweeps, registry: Registry, containerd: ContainerdDaemon
) -> None:
    name = pulled(store, registry, "gone")
    record = store.record(name)
    assert record is not None
    assert record.labels[PULLED] == "true"
    assert sweeps.sweep() == set()  # seen for the first time
    sweeps.clock.seconds += DELAY_S - 1
    assert sweeps.sweep() == set()
    sweeps.clock.seconds += 1
    assert sweeps.sweep() == {name}
    assert store.record(name) is None
    assert record.digest not in containerd.ctr("content", "list", "-q")
    assert containerd.ctr("snapshots", "list").count("Committed") == 0


def test_a_start_begins_the_delay_anew(store: Images, sweeps: Sweeps, registry: Registry) -> None:
    name = pulled(store, registry, "again")
    sweeps.sweep()
    sweeps.clock.seconds += DELAY_S
    assert store.get(name).name == name
    record = store.record(name)
    assert record is not None
    assert UNUSED_SINCE not in record.labels
    assert sweeps.sweep() == set()
    sweeps.clock.seconds += DELAY_S
    assert sweeps.sweep() == {name}


def test_an_image_that_a_container_has_stays(
    store: Images, sweeps: Sweeps, registry: Registry, containerd: ContainerdDaemon
) -> None:
    name = pulled(store, registry, "used")
    sweeps.sweep()
    sweeps.clock.seconds += DELAY_S
    containerd.ctr("containers", "create", name, "user")
    try:
        assert sweeps.sweep() == set()
        sweeps.clock.seconds += 10 * DELAY_S
        assert sweeps.sweep() == set()
    finally:
        containerd.ctr("containers", "delete", "user")
    assert sweeps.sweep() == set()  # unused from now on
    sweeps.clock.seconds += DELAY_S
    assert sweeps.sweep() == {name}


def test_what_a_start_holds_counts_as_used(
    store: Images, sweeps: Sweeps, registry: Registry
) -> None:
    name = pulled(store, registry, "held")
    sweeps.sweep()
    sweeps.clock.seconds += DELAY_S
    assert sweeps.sweep(name) == set()
    sweeps.clock.seconds += 1
    assert sweeps.sweep() == set()


def test_images_of_others_are_never_touched(
    store: Images, sweeps: Sweeps, registry: Registry, containerd: ContainerdDaemon
) -> None:
    image = images.build([images.layer({"hello": b"operator's"})])
    name = images.push(registry.host, "operators", "latest", image)
    containerd.ctr("images", "pull", "--plain-http", name)
    assert store.get(name).name == name  # ours to use, not to remove
    for _ in range(3):
        assert sweeps.sweep() == set()
        sweeps.clock.seconds += DELAY_S
    record = store.record(name)
    assert record is not None
    assert UNUSED_SINCE not in record.labels


def test_a_start_in_another_plugin_stops_a_removal(
    store: Images, sweeps: Sweeps, registry: Registry
) -> None:
    name = pulled(store, registry, "raced")
    sweeps.sweep()
    sweeps.clock.seconds += DELAY_S
    assert sweeps.sweep(remove=False) == {name}
    store.get(name)

    async def remove(containerd: Containerd) -> None:
        await ImageCollector(containerd, DELAY_S, sweeps.clock, sweeps.clock.boot).remove(name)

    sweeps.daemon.ask(remove)
    assert store.record(name) is not None


@pytest.mark.parametrize(
    "text",
    [
        *("soon", "first", "first/", "first/-5", "first/99999999999", "first/1e400", "first/٣"),
        "50",  # as releases up to 1.1.0 wrote: seconds since the epoch
        "second/50",
    ],
)
def test_a_label_that_makes_no_sense_begins_the_delay_anew(
    store: Images, sweeps: Sweeps, registry: Registry, text: str
) -> None:
    name = pulled(store, registry, "odd")
    sweeps.label(name, UNUSED_SINCE, text)
    assert sweeps.sweep() == set()
    sweeps.clock.seconds += DELAY_S
    assert sweeps.sweep() == {name}


def test_after_a_reboot_the_delay_begins_anew(
    store: Images, sweeps: Sweeps, registry: Registry
) -> None:
    name = pulled(store, registry, "rebooted")
    sweeps.sweep()
    sweeps.clock.boot, sweeps.clock.seconds = "second", 10 * DELAY_S
    assert sweeps.sweep() == set()
    sweeps.clock.seconds += DELAY_S
    assert sweeps.sweep() == {name}


def test_a_clock_that_is_set_an_hour_forward_makes_no_image_older(
    store: Images, sweeps: Sweeps, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, now = pulled(store, registry, "jumped"), time.time()

    async def due(containerd: Containerd) -> tuple[str, ...]:
        return await ImageCollector(containerd, DELAY_S).due(())

    assert sweeps.daemon.ask(due) == ()
    monkeypatch.setattr("time.time", lambda: now + 2 * DELAY_S)
    assert sweeps.daemon.ask(due) == ()
    record = store.record(name)
    assert record is not None
    assert record.labels[UNUSED_SINCE].startswith(f"{identity.boot_id()}/")


def test_an_image_from_an_archive_is_removed_too(store: Images, sweeps: Sweeps) -> None:
    (store.task_directory / "local").mkdir(parents=True)
    body = tar_of(docker_files([images.layer({"hello": b"archive"})]))
    (store.task_directory / "local/x.tar").write_bytes(body)
    name = store.get("mine:1", load="x.tar").name
    sweeps.sweep()
    sweeps.clock.seconds += DELAY_S
    assert sweeps.sweep() == {name}


@pytest.fixture
def own_image(registry: Registry) -> str:
    """Pushes an image with busybox that only one test has."""
    image = images.build([images.busybox_layer({"for": b"gc"})])
    return images.push(registry.host, "gc-box", "1", image)


async def test_the_plugin_removes_images_after_their_last_task_and_not_before(
    containerd: ContainerdDaemon, tmp_path: Path, own_image: str, sweeps: Sweeps
) -> None:
    driver = Driver(containerd, tmp_path, {"gc": {"image_delay": "1s"}})

    def there() -> bool:
        return own_image in containerd.ctr("images", "list", "-q").split()

    try:
        async with launched(driver) as session:
            job, marker = driver.task("kept"), driver.task("marker")
            await driver.start(job, own_image, "echo ready; exec sleep 600")
            # Another image comes and goes: by then the sweeps had enough time for the first image.
            other = images.build([images.busybox_layer({"for": b"marker"})])
            name = images.push(own_image.partition("/")[0], "gc-marker", "1", other)
            await driver.start(marker, name, "true")
            await session.wait(marker.id)
            await driver.end(marker)
            await until(lambda: name not in containerd.ctr("images", "list", "-q").split(), 30)
            assert there()
            session.kill_plugin()
            await session.launch()
            await session.destroy(job.id)
            await until(lambda: not there(), 30)
            again = driver.task("again")
            await driver.start(again, own_image, "true")
            await session.wait(again.id)
            await driver.end(again)
        driver.wait_clean()
    finally:
        driver.close()


async def test_collection_is_off_where_the_operator_says_so(
    containerd: ContainerdDaemon, tmp_path: Path, own_image: str, sweeps: Sweeps
) -> None:
    on, off = {"image_delay": "0s"}, {"image": False, "image_delay": "0s"}
    kept, swept = Driver(containerd, tmp_path / "off", {"gc": off}), tmp_path / "on"
    try:
        async with launched(kept) as session:
            other = images.build([images.busybox_layer({"for": b"off"})])
            name = images.push(own_image.partition("/")[0], "gc-off", "1", other)
            # The second task lasts longer than two sweeps would need for the first task's image.
            for image, script in ((own_image, "true"), (name, "sleep 4")):
                job = kept.task()
                await kept.start(job, image, script)
                await session.wait(job.id)
                await kept.end(job)
        assert own_image in containerd.ctr("images", "list", "-q").split()
        # Any plugin on the same containerd may remove the image: no count is in memory.
        async with launched(Driver(containerd, swept, {"gc": on})):
            await until(lambda: own_image not in containerd.ctr("images", "list", "-q").split(), 30)
    finally:
        kept.close()
