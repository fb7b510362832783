"""Runs of the embedded host in a network of the test's own."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import side_by_side
from tests.support.daemons import runtimes
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.kernel.own_network import OwnNetwork
from tests.support.needs import missing, need_containerd
from tests.support.plugin.driver import Driver, launched
from tests.support.plugin.host_run import Run
from tests.support.registries.image_store import Images, server_of_a_file

__all__ = ["server_of_a_file"]

PLUGINS = Path("/usr/lib/cni")


@pytest.fixture
def network(request: pytest.FixtureRequest) -> Iterator[OwnNetwork]:
    side_by_side.check(request.path)
    for program in ("iptables", "nsenter", "busybox"):
        if shutil.which(program) is None:
            missing("containerd", f"{program} is not installed")
    if not (PLUGINS / "bridge").exists():
        missing("containerd", "no CNI plugins (apt-get install containernetworking-plugins)")
    with OwnNetwork() as own:
        yield own


@pytest.fixture
def run(network: OwnNetwork, driver: Driver, tmp_path: Path) -> Iterator[Run]:
    made = Run(network, driver, tmp_path)
    yield made
    if made.process is not None and not made.ended():
        made.stop()


@pytest.fixture(scope="module")
def runtimes_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerdDaemon]:
    """Starts a containerd with crun and runsc, wrapped for the test machine."""
    need_containerd()
    directory = tmp_path_factory.mktemp("runtimes")
    runtimes.wrap(directory)
    with ContainerdDaemon(path=str(directory)) as daemon:
        yield daemon


@pytest.fixture
def runtimes_driver(runtimes_daemon: ContainerdDaemon, tmp_path: Path) -> Iterator[Driver]:
    """Yields a driver on `runtimes_daemon`; checks that no task leaves an object."""
    made = Driver(runtimes_daemon, tmp_path)
    try:
        yield made
        made.wait_clean()
    finally:
        made.close()


@pytest.fixture
def image(driver: Driver, busybox_image: str) -> str:
    """Pulls an image before the test: the registry is not in the test's network."""

    async def pull() -> None:
        async with launched(driver):
            await driver.output(busybox_image, "true")

    asyncio.run(pull())
    return busybox_image


@pytest.fixture
def store(containerd: ContainerdDaemon, tmp_path: Path) -> Images:
    return Images(containerd, tmp_path)
