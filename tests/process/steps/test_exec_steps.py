"""Tests of an exec's steps, which fail or hang: the caller gets an error, and nothing is left."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from actors.model.nomad import TaskState
from containerd.api import methods
from containerd.api.methods import Method
from proto.errors import DriverError
from tests.support.fakes.stage import Stage
from tests.support.plugin.driver import Job
from tests.support.waiting import until

STEPS: dict[str, tuple[Method[Any, Any], str]] = {
    "container": (methods.CONTAINER_GET, "containerd cannot look up container"),
    "exec": (methods.TASK_EXEC, "containerd cannot prepare a command in container"),
    "start": (methods.TASK_START, "containerd cannot run a command in container"),
    "wait": (methods.TASK_WAIT, "containerd cannot wait for container"),
}
EVERY_STEP = pytest.mark.parametrize("step", list(STEPS))
BOTH = pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])


def left(stage: Stage, job: Job) -> list[str]:
    """Returns everything left of commands in a task: in containerd and in the state directory."""
    directory = stage.driver.state_dir / "tasks" / job.container
    execs = list(stage.containerd.tasks.tasks[job.container].execs)
    return execs + [entry.name for entry in directory.glob("exec-*")]


@BOTH
@EVERY_STEP
async def test_a_step_of_an_exec_that_fails_is_told_and_leaves_nothing(
    stage: Stage, step: str, after: bool
) -> None:
    job = stage.driver.task()
    await stage.start(job)
    method, text = STEPS[step]
    stage.containerd.fail(method, grpc.StatusCode.UNKNOWN, "no: unknown", after=after)
    with pytest.raises(DriverError, match=text):
        await stage.session.exec(job.id, ["/bin/true"])
    stage.containerd.faults.clear()
    assert left(stage, job) == []
    assert (await stage.session.inspect(job.id)).state is TaskState.RUNNING
    await stage.session.destroy(job.id)


@BOTH
@pytest.mark.parametrize("step", ["exec", "start"])
async def test_an_exec_that_hangs_goes_with_its_caller(
    stage: Stage, step: str, after: bool
) -> None:
    job = stage.driver.task()
    await stage.start(job)
    fault = stage.containerd.hang(STEPS[step][0], after=after)
    with pytest.raises(DriverError, match=r"did not end within 0\.3 s"):
        await stage.session.exec(job.id, ["/bin/sleep", "600"], timeout_s=0.3)
    assert fault.calls
    stage.containerd.faults.clear()
    await until(lambda: not left(stage, job), 10, lambda: str(left(stage, job)))
    await stage.session.destroy(job.id)


async def test_a_command_outlives_a_restart_of_containerd(stage: Stage) -> None:
    job = stage.driver.task()
    await stage.start(job)
    go = stage.driver.state_dir / "go"
    script = f"until test -e {go}; do sleep 0.05; done; echo hello; exit 4"
    waits = stage.containerd.hang(methods.TASK_WAIT)
    running = asyncio.create_task(stage.session.exec(job.id, ["/bin/sh", "-c", script]))
    await until(lambda: waits.calls or running.done(), 10, "nobody waits for the command")
    stage.containerd.down()
    stage.containerd.faults.clear()
    await stage.back()
    go.touch()
    result = await running
    assert (result.stdout, result.exit.exit_code) == (b"hello\n", 4)
    await stage.session.destroy(job.id)
