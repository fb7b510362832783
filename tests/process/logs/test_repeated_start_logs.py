"""Tests of an interrupted and repeated start, with a log reader that ends at the first end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from typing import Any

import pytest

from proto.errors import DriverError
from tests.support.fakes.stage import IMAGE, STEPS, Stage
from tests.support.plugin.driver import Job
from tests.support.plugin.victims import PLUGIN, WORKER, Victims, runs
from tests.support.waiting import until
from tests.support.workers.launcher import worker_pid
from tests.support.workers.open_fifos import holders
from tests.support.workers.peers import LogReader

AGAIN: dict[str, Any] = {"image": IMAGE, "command": "/bin/sh", "args": ["-c", "seq 1 1000"]}
CUT: dict[str, Any] = {**AGAIN, "args": ["-c", "exec sleep 600"]}
WHOLE = b"".join(b"%d\n" % number for number in range(1, 1001))


@pytest.fixture
def job(stage: Stage) -> Job:
    """Prepares a task without a start."""
    return stage.driver.task()


def readers(job: Job) -> list[LogReader]:
    """Starts Nomad's logmon for both streams."""
    return [LogReader(job.alloc.fifo("t", stream)) for stream in ("stdout", "stderr")]


def again(job: Job) -> Job:
    """Builds the task of Nomad's next start: with another id, in the same allocation."""
    return dataclasses.replace(job, config=dataclasses.replace(job.config, id=f"{job.id}2"))


async def cut_short(stage: Stage, job: Job, step: str, *victims: str) -> Victims:
    """Kills the given processes during a start and leaves everything else of the start."""
    fault = stage.containerd.hang(STEPS[step][0], after=True)
    starting = asyncio.create_task(stage.session.start(job.config, CUT))
    await until(lambda: fault.calls, 20, f"no start reaches {step}")
    state = stage.driver.state_dir / "tasks" / job.container
    await until(lambda: worker_pid(state), 20, "no worker")
    around = Victims(stage.driver, job)
    around.kill(*victims)
    with contextlib.suppress(DriverError):
        await starting
    await until(lambda: WORKER not in victims or not runs(around.worker), 10, "it lives")
    stage.containerd.faults.clear()
    return around


async def whole_log(stage: Stage, job: Job, out: LogReader) -> None:
    """Repeats the start and checks that the earlier reader gets all output of the task."""
    await stage.session.launch()
    job = again(job)
    await stage.session.start(job.config, AGAIN)
    await stage.session.wait(job.id)
    data = await asyncio.to_thread(out.finish)
    assert data == WHOLE
    await stage.session.destroy(job.id)


@pytest.mark.parametrize("victims", [(PLUGIN,), (PLUGIN, WORKER)], ids="+".join)
@pytest.mark.parametrize("step", ["container", "task", "start"])
async def test_a_start_that_is_made_again_has_its_whole_log_though_an_old_shim_ends_amid_it(
    stage: Stage, job: Job, step: str, victims: tuple[str, ...]
) -> None:
    out, _ = readers(job)
    await cut_short(stage, job, step, *victims)
    left = stage.containerd.tasks.tasks.get(job.container)
    assert (left is not None) == (step != "container")
    await whole_log(stage, job, out)


async def test_a_worker_without_its_plugin_holds_the_logs_when_containerd_ends_the_shim(
    stage: Stage, job: Job
) -> None:
    out, _ = readers(job)
    around = await cut_short(stage, job, "task", PLUGIN)
    fifos = [job.alloc.fifo("t", stream) for stream in ("stdout", "stderr")]
    assert around.worker is not None
    mine = [around.worker]
    await until(
        lambda: all(holders(fifo, os.O_WRONLY, mine) for fifo in fifos), 10, "nobody holds them"
    )
    stage.containerd.tasks.tasks.pop(job.container).remove()
    await whole_log(stage, job, out)
    await until(lambda: not runs(around.worker), 10, "the first start's worker is left")


async def test_a_worker_without_its_plugin_outlives_a_shim_that_closed_its_write_end(
    stage: Stage, job: Job
) -> None:
    around = await cut_short(stage, job, "container", PLUGIN)
    fifo = job.alloc.fifo("t", "stdout")
    assert around.worker is not None
    mine = [around.worker]
    read_end = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.close(os.open(fifo, os.O_WRONLY))
    await until(lambda: not holders(fifo, os.O_RDONLY, mine), 10, "the worker did not notice")
    # The worker still checks the other log, where a shim opens now.
    other = job.alloc.fifo("t", "stderr")
    write_end = os.open(other, os.O_WRONLY)
    await until(lambda: holders(other, os.O_WRONLY, mine), 10, "the worker has died")
    os.close(write_end)
    os.close(read_end)
    await stage.session.launch()
    task = again(job)
    await stage.session.start(task.config, CUT)
    await until(lambda: not runs(around.worker), 10, "the first start's worker is left")
    await stage.session.destroy(task.id)
