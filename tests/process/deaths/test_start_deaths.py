"""Tests of a start: other processes than the plugin die in each step; at most one task runs."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools

import pytest

from actors.model.nomad import TaskState
from proto.containerd import snapshots_pb2
from proto.errors import DriverError
from tests.support.fakes.stage import IMAGE, SLEEPER, STEPS, Stage
from tests.support.plugin.driver import Job
from tests.support.plugin.victims import CONTAINERD, LAUNCHER, WORKER, Victims, runs
from tests.support.waiting import until
from tests.support.workers.launcher import worker_pid

OTHERS = (WORKER, LAUNCHER, CONTAINERD)
VICTIMS = [(one,) for one in OTHERS] + list(itertools.combinations(OTHERS, 2))
CONFIG = {"image": IMAGE, "command": "/bin/sh", "args": ["-c", SLEEPER]}


async def cut(stage: Stage, step: str, victims: tuple[str, ...], *, after: bool) -> Job:
    """Starts a job with a death at the step, tries again like Nomad, and returns the job."""
    job = stage.driver.task()
    fault = stage.containerd.hang(STEPS[step][0], after=after)
    starting = asyncio.create_task(stage.session.start(job.config, CONFIG))
    await until(lambda: fault.calls, 20, f"no start reaches {step}")
    state = stage.driver.state_dir / "tasks" / job.container
    await until(lambda: worker_pid(state), 20, "no worker")
    around = Victims(stage.driver, job)
    around.kill(*victims)
    stage.containerd.faults.clear()
    await around.bring_back(*victims, handle=None)
    (ended,) = await asyncio.gather(starting, return_exceptions=True)
    if isinstance(ended, BaseException):
        assert victims != (LAUNCHER,), "a worker needs its launcher no more"
        assert isinstance(ended, DriverError)
        assert ended.recoverable, str(ended)
        await until(lambda: not runs(around.worker), 10, "the worker is left")
        stage.driver.wait_clean()
        job = dataclasses.replace(job, config=dataclasses.replace(job.config, id=f"{job.id}2"))
        await stage.session.start(job.config, CONFIG)
    return job


@pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])
@pytest.mark.parametrize("step", list(STEPS)[3:])
@pytest.mark.parametrize("victims", VICTIMS, ids="+".join)
async def test_a_start_whose_helpers_are_killed_runs_once_or_can_be_made_again(
    stage: Stage, step: str, victims: tuple[str, ...], after: bool
) -> None:
    job = await cut(stage, step, victims, after=after)
    assert (await stage.session.inspect(job.id)).state is TaskState.RUNNING
    metadata = stage.containerd.metadata
    active = [one for one in metadata.snapshots.values() if one.info.kind == snapshots_pb2.ACTIVE]
    assert len(metadata.containers) == len(stage.containerd.tasks.tasks) == len(active) == 1
    state = stage.driver.state_dir / "tasks" / job.container
    worker = await until(lambda: worker_pid(state), 10, "no worker came back")
    stats = stage.session.stats(job.id, 0.1)
    await anext(stats)
    await stats.aclose()
    await stage.session.destroy(job.id)
    await until(lambda: not runs(worker), 10, "the worker is left")
