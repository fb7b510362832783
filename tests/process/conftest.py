"""A real plugin on a fake containerd, and a launcher alone, common to the tests of a file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.fakes.stage import Stage
from tests.support.workers.peers import LauncherProcess

__all__ = ["running", "stage"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Starts a plugin, launcher, state directory and containerd for the whole file."""
    with Stage(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    """Yields the file's stage and checks that the test's tasks leave nothing."""
    yield running
    running.reset()


@pytest.fixture(scope="module")
def launcher() -> Iterator[LauncherProcess]:
    """Yields one launcher for all tests of the module."""
    with LauncherProcess() as running:
        yield running


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """Yields the runner of the stage: the stage's session belongs to the runner's event loop."""
    if "stage" in request.fixturenames:
        yield request.getfixturevalue("stage").runner
    else:
        with asyncio.Runner() as own:
            yield own
