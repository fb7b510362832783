"""Tests of a plugin killed at every step of a start; the next plugin copes with the leftovers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
from typing import Any

import pytest

from actors.model.nomad import TaskState
from containerd.api import methods
from containerd.api.methods import Method
from plugin.host.agent.session import Handle
from proto.containerd import snapshots_pb2
from proto.errors import Code, DriverError
from tests.support.fakes.stage import IMAGE, SLEEPER, STEPS, Stage
from tests.support.plugin.driver import Job, children
from tests.support.waiting import until
from tests.support.workers.launcher import launcher_pid, worker_pid

STEP = pytest.mark.parametrize("step", list(STEPS)[2:])
BOTH = pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])


async def killed_in(stage: Stage, step: str, *, after: bool) -> Job:
    """Kills the plugin at a step of a start and returns the task; a new plugin runs."""
    job = stage.driver.task()
    fault = stage.containerd.hang(STEPS[step][0], after=after)
    starting = asyncio.create_task(stage.start(job))
    await until(lambda: fault.calls, 20, f"no start reaches {step}")
    stage.session.kill_plugin()
    with pytest.raises(DriverError) as failed:
        await starting
    assert failed.value.code in {Code.UNAVAILABLE, Code.CANCELLED}
    await stage.session.launch()
    stage.containerd.faults.clear()
    return job


def again(job: Job) -> Job:
    """Builds the task of Nomad's next start: with another id, in the same allocation."""
    return dataclasses.replace(job, config=dataclasses.replace(job.config, id=f"{job.id}2"))


def count(stage: Stage) -> dict[str, int]:
    """Returns the number of all objects of tasks."""
    metadata = stage.containerd.metadata
    active = [one for one in metadata.snapshots.values() if one.info.kind == snapshots_pb2.ACTIVE]
    return {
        "containers": len(metadata.containers),
        "tasks": len(stage.containerd.tasks.tasks),
        "snapshots": len(active),
    }


@BOTH
@STEP
async def test_the_next_start_of_the_task_makes_exactly_one_container(
    stage: Stage, step: str, after: bool
) -> None:
    job = again(await killed_in(stage, step, after=after))
    config = {"image": IMAGE, "command": "/bin/sh", "args": ["-c", SLEEPER]}
    await stage.session.start(job.config, config)
    assert (await stage.session.inspect(job.id)).state is TaskState.RUNNING
    assert count(stage) == {"containers": 1, "tasks": 1, "snapshots": 1}
    launcher = launcher_pid(stage.driver.state_dir)
    await until(lambda: len(children(launcher)) == 1, 10, "not exactly one worker")
    await stage.session.destroy(job.id)


@BOTH
@STEP
async def test_a_destroy_of_the_task_removes_what_its_start_had_made(
    stage: Stage, step: str, after: bool
) -> None:
    job = await killed_in(stage, step, after=after)
    await stage.session.destroy(job.id)
    assert stage.containerd.leftovers() == []


@pytest.mark.parametrize(
    "method",
    [methods.TASK_DELETE, methods.SNAPSHOT_REMOVE, methods.CONTAINER_DELETE],
    ids=lambda method: method.path.rpartition(".")[2],
)
@BOTH
async def test_a_plugin_killed_in_a_destroy_leaves_the_rest_to_the_next_destroy(
    stage: Stage, method: Method[Any, Any], after: bool
) -> None:
    job = stage.driver.task()
    await stage.start(job)
    fault = stage.containerd.hang(method, after=after)
    ending = asyncio.create_task(stage.session.destroy(job.id))
    await until(lambda: fault.calls, 20, f"no destroy reaches {method.path}")
    stage.session.kill_plugin()
    with contextlib.suppress(DriverError):
        await ending
    await stage.session.launch()
    stage.containerd.faults.clear()
    await stage.session.destroy(job.id)
    assert stage.containerd.leftovers() == []


async def unrecovered(stage: Stage) -> tuple[Job, Handle]:
    """Starts a task and kills worker and plugin; the new plugin does not know the task yet."""
    job = stage.driver.task()
    job.read_logs()
    config = {"image": IMAGE, "command": "/bin/sh", "args": ["-c", SLEEPER]}
    handle = await stage.session.start(job.config, config)
    stage.session.kill_plugin()
    worker = worker_pid(stage.driver.state_dir / "tasks" / job.container)
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    await stage.session.launch()
    return job, handle


async def test_a_destroy_that_comes_into_a_recovery_removes_the_task(stage: Stage) -> None:
    job, handle = await unrecovered(stage)
    # Without a bundle that names the shim, the plugin asks containerd.
    shutil.rmtree(stage.containerd.tasks.tasks[job.container].bundle)
    fault = stage.containerd.hang(methods.TASK_GET)
    recovering = asyncio.create_task(stage.session.recover(handle))
    await until(lambda: fault.calls or recovering.done(), 20, "no recovery asks for the task")
    destroying = asyncio.create_task(stage.session.destroy(job.id))
    with pytest.raises(DriverError):
        await recovering
    stage.containerd.faults.clear()
    await destroying
    assert stage.containerd.leftovers() == []


async def test_a_destroy_right_after_a_failed_recovery_removes_the_task(stage: Stage) -> None:
    for _ in range(5):
        job, handle = await unrecovered(stage)
        job.alloc.fifo("t", "stdout").unlink()
        outcomes = await asyncio.gather(
            stage.session.recover(handle),
            stage.session.destroy(job.id),
            return_exceptions=True,
        )
        # Which of the two came first is the machine's affair.
        assert isinstance(outcomes[0], DriverError)
        assert outcomes[1] is None
        await stage.session.destroy(job.id)
        assert stage.containerd.leftovers() == []
