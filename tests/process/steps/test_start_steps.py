"""Tests of a start's steps, which fail, hang, or lose an answer: an error, and nothing is left.

A real plugin, launcher and workers run on a scripted containerd.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from actors.model.nomad import TaskState
from containerd.api import methods
from proto.errors import DriverError
from tests.support.fakes.stage import IMAGE, STEPS, Stage
from tests.support.waiting import until
from tests.support.workers.launcher import launcher_pid, worker_pids

EVERY_STEP = pytest.mark.parametrize("step", list(STEPS))
BOTH = pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Yields one plugin for the whole file: the plugin must survive all tests."""
    with Stage(tmp_path_factory.mktemp("stage")) as stage:
        pid = stage.session.pid
        yield stage
        assert stage.session.pid == pid
        assert stage.session.alive


async def test_without_a_fault_a_task_runs_and_goes(stage: Stage) -> None:
    job = stage.driver.task()
    await stage.start(job, "echo hello; exit 7")
    assert (await stage.session.wait(job.id)).exit_code == 7
    await stage.driver.end(job)
    assert bytes(job.out) == b"hello\n"


@BOTH
@EVERY_STEP
async def test_a_step_that_fails_is_told_in_a_sentence_and_leaves_nothing(
    stage: Stage, step: str, after: bool
) -> None:
    stage.internal(step, after=after)
    error = await stage.refusal(stage.start(stage.driver.task()))
    assert STEPS[step][1] in str(error)
    assert "a disk full of sorrow" in str(error)
    stage.containerd.faults.clear()
    assert stage.containerd.leftovers() == []


@BOTH
@EVERY_STEP
@pytest.mark.parametrize("way", ["stop", "destroy"])
async def test_a_start_that_hangs_ends_when_its_task_is_told_to_go(
    stage: Stage, step: str, after: bool, way: str
) -> None:
    async with stage.hanging(step, after=after) as starting:
        await getattr(stage.session, way)(starting.get_name())
        error = await stage.refusal(starting)
        assert "the start was cancelled" in str(error)
    with pytest.raises(DriverError, match="task not found"):
        await stage.session.inspect(starting.get_name())


@BOTH
@EVERY_STEP
async def test_a_start_outlives_no_containerd_that_goes_away_and_leaves_nothing_when_it_is_back(
    stage: Stage, step: str, after: bool
) -> None:
    async with stage.hanging(step, after=after) as starting:
        stage.containerd.down()
    stage.containerd.start()
    error = await stage.refusal(starting)
    assert STEPS[step][1] in str(error) or "containerd does not answer at" in str(error)
    assert error.recoverable


# --- steps without containerd


async def test_a_user_that_the_image_does_not_know_is_named(stage: Stage) -> None:
    error = await stage.refusal(stage.start(stage.driver.task(user="nobody-at-all")))
    assert "no users found: the image has no user 'nobody-at-all'" in str(error)


async def test_a_log_that_is_no_fifo_fails_the_start(stage: Stage) -> None:
    job = stage.driver.task()
    fifo = Path(job.config.stdout_path)
    fifo.unlink()
    fifo.write_text("not a FIFO")
    error = await stage.refusal(stage.session.start(job.config, {"image": IMAGE, "command": "x"}))
    assert str(fifo) in str(error)
    assert fifo.read_text() == "not a FIFO"


async def test_name_files_whose_directory_is_open_to_others_fail_the_start(stage: Stage) -> None:
    job = stage.driver.task()
    directory = job.alloc.path / "t" / ".etc"
    directory.mkdir()
    directory.chmod(0o777)
    error = await stage.refusal(stage.start(job))
    assert "hosts" in str(error)
    assert "another user can write to the directory" in str(error)


async def test_a_shim_that_nobody_can_reach_fails_the_start(stage: Stage) -> None:
    stage.containerd.tasks.address = "unix:///nowhere/shim.sock"
    error = await stage.refusal(stage.start(stage.driver.task()))
    assert "the shim of container" in str(error)
    assert "/nowhere/shim.sock" in str(error)
    assert stage.containerd.leftovers() == []


async def test_a_worker_that_dies_in_the_middle_of_a_start_fails_it(stage: Stage) -> None:
    async with stage.hanging("task", after=True) as starting:
        (pid,) = await until(lambda: worker_pids(stage.driver.state_dir), 10)
        os.kill(pid, signal.SIGKILL)
    error = await stage.refusal(starting)
    assert "the task's worker went away" in str(error)
    assert error.recoverable
    assert stage.containerd.leftovers() == []


@pytest.mark.parametrize("way", ["stop", "destroy"])
async def test_a_start_that_waits_for_the_launcher_can_be_told_to_go(
    stage: Stage, way: str
) -> None:
    job = stage.driver.task()
    await stage.session.fingerprint()  # the launcher exists
    launcher = launcher_pid(stage.driver.state_dir)
    assert launcher is not None
    os.kill(launcher, signal.SIGSTOP)
    try:
        starting = asyncio.create_task(stage.start(job))
        made = stage.containerd.metadata.containers
        await until(lambda: made or starting.done(), 20, "the container is not made")
        await getattr(stage.session, way)(job.id)
        assert "the start was cancelled" in str(await stage.refusal(starting))
        assert stage.containerd.leftovers() == []
    finally:
        os.kill(launcher, signal.SIGCONT)


async def test_starts_side_by_side_do_not_hold_each_other_up(stage: Stage) -> None:
    jobs = [stage.driver.task(f"t{number}") for number in range(6)]
    bad, good = jobs[::2], jobs[1::2]
    for job in bad:
        stage.containerd.hang(STEPS["start"][0], container=job.container)
    starting = {job.id: asyncio.create_task(stage.start(job)) for job in jobs}
    await asyncio.gather(*(starting[job.id] for job in good))
    for job in bad:
        await stage.session.stop(job.id)
        with pytest.raises(DriverError, match="the start was cancelled"):
            await starting[job.id]
    for job in good:
        await stage.session.destroy(job.id)


async def test_a_bundle_of_an_earlier_start_is_waited_for_and_the_start_made_again(
    stage: Stage,
) -> None:
    job = stage.driver.task()
    text = f"failed to start shim: mkdir /run/x/{job.container}: file exists: unknown"
    fault = stage.containerd.fail(methods.TASK_CREATE, grpc.StatusCode.UNKNOWN, text)
    starting = asyncio.create_task(stage.start(job))
    await until(lambda: fault.calls or starting.done(), 20, "no start creates the task")
    stage.containerd.faults.clear()
    await starting
    assert (await stage.session.inspect(job.id)).state is TaskState.RUNNING
    await stage.session.destroy(job.id)


async def test_a_bundle_that_stays_fails_the_start_for_now(stage: Stage) -> None:
    job = stage.driver.task()
    text = f"failed to start shim: mkdir /run/x/{job.container}: file exists: unknown"
    fault = stage.containerd.fail(methods.TASK_CREATE, grpc.StatusCode.UNKNOWN, text)
    error = await stage.refusal(stage.start(job))
    assert "file exists" in str(error)
    assert error.recoverable
    assert fault.calls > 1
    assert stage.containerd.leftovers() == []
