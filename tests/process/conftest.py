"""A real plugin on a fake containerd, common to the tests of a file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.garbage import pytest_runtest_teardown
from tests.support.stage import Stage

__all__ = ["pytest_runtest_teardown", "running", "stage"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One plugin, launcher, state directory and containerd for the whole file."""
    with Stage(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    """Nothing may be left of a test's tasks."""
    yield running
    running.reset()


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """A stage's session is bound to the event loop of the stage, so its tests run there."""
    if "stage" in request.fixturenames:
        yield request.getfixturevalue("stage").runner
    else:
        with asyncio.Runner() as own:
            yield own
