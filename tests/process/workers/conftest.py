"""Names and tasks of the tests of a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.fakes.shim import FakeTask
from tests.support.workers.peers import LauncherProcess


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Returns a task name for the test, short enough for a socket's path."""
    return f"t{abs(hash(request.node.name)) % 10**8}"


@pytest.fixture
def make_task(launcher: LauncherProcess, name: str) -> Iterator[Callable[..., FakeTask]]:
    """Makes the task of a fake shim and ends the task after the test."""
    made: list[FakeTask] = []

    def make(script: str, *, orphan: bool = False) -> FakeTask:
        made.append(FakeTask(name, script, launcher.state_dir, orphan=orphan))
        return made[-1]

    yield make
    for task in made:
        task.remove()
