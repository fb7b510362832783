"""Fixtures of all tiers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import side_by_side
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.garbage import pytest_runtest_teardown
from tests.support.kernel import mounted
from tests.support.needs import need_containerd
from tests.support.plugin.driver import Driver
from tests.support.registries import images
from tests.support.registries.registry import Registry
from tests.support.waiting import slowed

__all__ = ["pytest_runtest_teardown"]

# A cancelled test still cleans up; pytest-timeout would end the test without a cleanup.
LONGEST_TEST_S = 150


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives the processes of `./dev test` their tests."""
    return side_by_side.scheduler(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Sets the time limit of tests without a limit of their own; the command line may name one."""
    if config.option.timeout is None:
        config.option.timeout = slowed(float(config.getini("timeout")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sets the time limits of tests with limits of their own."""
    for item in items:
        own = item.get_closest_marker("timeout")
        if own is not None:
            item.add_marker(pytest.mark.timeout(slowed(own.args[0])), append=False)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """Runs an async test, and the async work of its fixtures on the same event loop."""
    with asyncio.Runner() as own:
        yield own


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Lets pytest call an async test as a plain function, which runs the test in its `runner`."""
    test = pyfuncitem.obj
    if inspect.iscoroutinefunction(test):
        runner: asyncio.Runner = pyfuncitem._request.getfixturevalue("runner")
        pyfuncitem.obj = lambda **arguments: runner.run(
            asyncio.wait_for(test(**arguments), slowed(LONGEST_TEST_S))
        )


@pytest.fixture(autouse=True)
def _no_mount_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Detaches mounts below pytest's directories before pytest empties the directories.

    The test with such a mount fails.
    """
    yield
    left = mounted.detach_below(tmp_path_factory.getbasetemp())
    assert left == [], f"the test left mounts, now detached: {left}"


@pytest.fixture(scope="session")
def containerd() -> Iterator[ContainerdDaemon]:
    """Starts a real containerd for the whole session."""
    need_containerd()
    with ContainerdDaemon() as daemon:
        yield daemon


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """Starts a real registry on loopback, without a password."""
    with Registry() as running:
        yield running


@pytest.fixture(scope="session")
def busybox_image(registry: Registry) -> str:
    """Pushes an image with busybox and the default command `id`."""
    image = images.build([images.busybox_layer()], {"Cmd": ["/bin/sh", "-c", "id"]})
    return images.push(registry.host, "busybox", "1", image)


@pytest.fixture
def driver(containerd: ContainerdDaemon, tmp_path: Path) -> Iterator[Driver]:
    """Yields a driver on the session's containerd; checks that no task leaves an object."""
    made = Driver(containerd, tmp_path)
    yield made
    try:
        made.wait_clean()
    finally:
        made.close()
