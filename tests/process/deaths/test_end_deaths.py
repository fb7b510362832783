"""Tests of a removal: processes around a task are killed at every step, and the rest is removed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from containerd.api import methods
from containerd.api.methods import Method
from proto.errors import DriverError
from tests.support.fakes.stage import IMAGE, SLEEPER, Stage
from tests.support.plugin.victims import PAIRS, PLUGIN, SINGLES, Victims, runs
from tests.support.waiting import until

# The last two steps have no work, as containerd collects a snapshot with the container: requests
# for absent objects are answered at once.
STEPS: list[tuple[Method[Any, Any], bool]] = [
    (methods.TASK_GET, False),
    (methods.TASK_GET, True),
    (methods.TASK_DELETE, False),
    (methods.TASK_DELETE, True),
    (methods.SNAPSHOT_REMOVE, False),
    (methods.SNAPSHOT_REMOVE, True),
    (methods.CONTAINER_DELETE, False),
    (methods.CONTAINER_DELETE, True),
]


# Single victims in every step, each pair in two steps, so that every step has a pair.
CASES: list[tuple[Method[Any, Any], bool, tuple[str, ...]]]
CASES = [(*step, one) for step in STEPS for one in SINGLES]
CASES += [(*STEPS[number % len(STEPS)], pair) for number, pair in enumerate(PAIRS * 2)]


def name(part: object) -> str:
    match part:
        case bool():
            return "done" if part else "not done"
        case tuple():
            return "+".join(part)
        case Method():
            return part.path.rpartition(".")[2]
        case _:
            raise AssertionError(part)


@pytest.mark.parametrize(("method", "after", "victims"), CASES, ids=name)
async def test_a_destroy_removes_everything_whoever_is_killed_in_it(
    stage: Stage, method: Method[Any, Any], victims: tuple[str, ...], after: bool
) -> None:
    job = stage.driver.task()
    config = {"image": IMAGE, "command": "/bin/sh", "args": ["-c", SLEEPER]}
    await stage.session.start(job.config, config)
    around = Victims(stage.driver, job)
    fault = stage.containerd.hang(method, after=after)
    ending = asyncio.create_task(stage.session.destroy(job.id))
    await until(lambda: fault.calls, 20, f"no destroy reaches {method.path}")
    around.kill(*victims)
    stage.containerd.faults.clear()
    await around.bring_back(*victims, handle=None)
    if PLUGIN in victims:  # Nomad asks the next plugin
        with contextlib.suppress(DriverError):
            await ending
        ending = asyncio.create_task(stage.session.destroy(job.id))
    await ending
    stage.driver.wait_clean()
    # The launcher may be dead, so no process counts the worker among a launcher's children.
    await until(lambda: not runs(around.worker), 10, "the worker is left")
