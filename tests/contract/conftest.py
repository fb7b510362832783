"""Tasks of the fake shim and of containerd's own, a launcher, and both containerds.

A test here that leaves an unclosed connection fails itself, and not a later test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.daemons.shim_tasks import IMAGE, RealTask, import_image
from tests.support.fakes.containerd import FakeContainerd
from tests.support.fakes.either import Daemon, Place
from tests.support.fakes.shim import FakeTask
from tests.support.workers.peers import LauncherProcess

Task = FakeTask | RealTask
MakeTask = Callable[[str], Task]


@pytest.fixture(scope="module")
def launcher() -> Iterator[LauncherProcess]:
    """Yields one launcher for all tests of the module."""
    with LauncherProcess() as running:
        yield running


@pytest.fixture(scope="module")
def chain_id(containerd: ContainerdDaemon, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Unpacks an image in the real containerd and returns the chain id."""
    return import_image(containerd, tmp_path_factory.mktemp("image"))


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.containerd)])
def make_task(
    request: pytest.FixtureRequest, tmp_path: Path, launcher: LauncherProcess
) -> Iterator[MakeTask]:
    """Yields a function that makes tasks which run a script; removes the tasks at the end."""
    made: list[Task] = []

    def make(script: str) -> Task:
        name = f"{request.param}-{abs(hash(request.node.name)) % 10**8}-{len(made)}"
        if request.param == "fake":
            made.append(FakeTask(name, script, launcher.state_dir))
        else:
            daemon = request.getfixturevalue("containerd")
            chain = request.getfixturevalue("chain_id")
            made.append(RealTask(daemon, chain, name, script, launcher.state_dir))
        return made[-1]

    yield make
    for task in made:
        task.remove()


@pytest.fixture(scope="module", params=["fake", pytest.param("real", marks=pytest.mark.containerd)])
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """Yields a containerd with an image."""
    if request.param == "real":
        yield request.getfixturevalue("containerd")
        return
    with FakeContainerd() as fake:
        yield fake


@pytest.fixture(scope="module")
def chain(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns the chain id of an unpacked image with the name IMAGE."""
    if isinstance(daemon, FakeContainerd):
        return daemon.add_image(IMAGE, {"Cmd": ["/bin/sh"]})
    return import_image(daemon, tmp_path_factory.mktemp("image"))


@pytest.fixture
def place(runner: asyncio.Runner, daemon: Daemon, chain: str, tmp_path: Path) -> Iterator[Place]:
    """Yields a place in the daemon, then removes all objects in the daemon."""
    place = Place(daemon, chain, tmp_path)
    yield place
    runner.run(place.client.close())
    daemon.remove_all()
