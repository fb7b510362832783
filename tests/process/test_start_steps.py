"""Every step of a start fails, hangs, or loses its answer: the user is told, and nothing is left.

A real plugin, launcher and workers, on a containerd that does what a test says.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proto.errors import DriverError
from tests.support.stage import STEPS, Stage

EVERY_STEP = pytest.mark.parametrize("step", list(STEPS))
BOTH = pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])
FROM_LEASE = pytest.mark.parametrize("step", list(STEPS)[2:])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One plugin for the whole file: it must outlive all this."""
    with Stage(tmp_path_factory.mktemp("stage")) as stage:
        pid = stage.session.pid
        yield stage
        assert stage.session.pid == pid
        assert stage.session.alive


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    """Nothing may be left of a test's tasks."""
    yield running
    running.reset()


def test_without_a_fault_a_task_runs_and_goes(stage: Stage) -> None:
    async def story() -> None:
        job = stage.driver.task()
        await stage.start(job, "echo hello; exit 7")
        assert (await stage.session.wait(job.id)).exit_code == 7
        await stage.driver.end(job)
        assert bytes(job.out) == b"hello\n"

    stage.play(story())


@BOTH
@EVERY_STEP
def test_a_step_that_fails_is_told_in_a_sentence_and_leaves_nothing(
    stage: Stage, step: str, after: bool
) -> None:
    async def story() -> None:
        stage.internal(step, after=after)
        error = await stage.refusal(stage.start(stage.driver.task()))
        assert STEPS[step][1] in str(error)
        assert "a disk full of sorrow" in str(error)
        stage.containerd.faults.clear()
        assert stage.containerd.leftovers() == []

    stage.play(story())


@BOTH
@EVERY_STEP
@pytest.mark.parametrize("way", ["stop", "destroy"])
def test_a_start_that_hangs_ends_when_its_task_is_told_to_go(
    stage: Stage, step: str, after: bool, way: str
) -> None:
    async def story() -> None:
        async with stage.hanging(step, after=after) as starting:
            await getattr(stage.session, way)(starting.get_name())
            error = await stage.refusal(starting)
            assert "the start was cancelled" in str(error)
        with pytest.raises(DriverError, match="task not found"):
            await stage.session.inspect(starting.get_name())

    stage.play(story())


@BOTH
@EVERY_STEP
def test_a_start_outlives_no_containerd_that_goes_away_and_leaves_nothing_when_it_is_back(
    stage: Stage, step: str, after: bool
) -> None:
    async def story() -> None:
        async with stage.hanging(step, after=after) as starting:
            stage.containerd.down()
        stage.containerd.start()
        error = await stage.refusal(starting)
        assert STEPS[step][1] in str(error) or "containerd does not answer at" in str(error)
        assert error.recoverable

    stage.play(story())
