"""Many starts at once, on a containerd that hangs in Create: all get their turns, others go on.

A real plugin, launcher and workers run on a scripted containerd.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable

import pytest

from actors.lifecycle.admission import STARTS_PER_CORE
from containerd.api import methods
from proto.errors import DriverError
from tests.support.fakes.stage import Stage
from tests.support.plugin.driver import Job
from tests.support.waiting import slowed, until

AT_ONCE = (os.cpu_count() or 1) * STARTS_PER_CORE


def begin(stage: Stage, count: int) -> dict[str, tuple[Job, asyncio.Task[None]]]:
    """Begins starts; returns task and start by the container's id."""
    jobs = [stage.driver.task() for _ in range(count)]
    return {job.container: (job, asyncio.create_task(stage.start(job))) for job in jobs}


def created(stage: Stage) -> list[str]:
    """Lists the containers whose tasks containerd was asked to create."""
    path = methods.TASK_CREATE.path
    return [call.request.container_id for call in stage.containerd.calls if call.path == path]


def waiting(stage: Stage, log: pytest.LogCaptureFixture, containers: list[str]) -> list[str]:
    """Lists the containers of starts that are ready for the runtime and wait for their turn."""
    asked = set(created(stage))
    ready = " ".join(line for line in log.messages if line.startswith("image ready"))
    return [c for c in containers if c not in asked and f"container_id={c}" in ready]


async def end(stage: Stage, jobs: Iterable[Job]) -> None:
    await asyncio.gather(*(stage.session.stop(job.id, timeout_s=10) for job in jobs))
    await asyncio.gather(*(stage.driver.end(job) for job in jobs))


async def place_told(stage: Stage) -> None:
    async with contextlib.aclosing(stage.session.events()) as events:
        async for event in events:
            if event.message.startswith("Waiting to start for 10 s: place "):
                return


async def test_starts_that_hang_in_the_runtime_delay_the_others_and_tell_their_places(
    stage: Stage,
) -> None:
    fault = stage.containerd.hang(methods.TASK_CREATE)
    telling = asyncio.create_task(place_told(stage))
    # Each round of turns counts for 2 s: the last round waits for longer than 10 s.
    starts = begin(stage, 7 * AT_ONCE)
    await until(lambda: fault.calls == len(starts), 60, "a start never gets to the runtime")
    async with asyncio.timeout(slowed(10)):
        await telling
    stage.containerd.faults.spare(fault)
    beside = stage.driver.task()
    await stage.start(beside)
    assert not any(starting.done() for _, starting in starts.values())
    fault.release()
    await asyncio.gather(*(starting for _, starting in starts.values()))
    await end(stage, [beside, *(job for job, _ in starts.values())])


async def test_neither_stops_nor_commands_wait_for_starts_and_a_stopped_start_leaves_the_queue(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "plugin.host.plugin")

    def ready() -> list[str]:
        return waiting(stage, caplog, list(starts))

    busy = stage.driver.task("busy")
    await stage.start(busy)
    fault = stage.containerd.hang(methods.TASK_CREATE)
    starts = begin(stage, 6 * AT_ONCE)
    await until(lambda: fault.calls >= AT_ONCE, 20, "the turns are not all taken")
    await until(lambda: len(ready()) >= 3 * AT_ONCE, 20, "too few starts wait")

    assert (await stage.session.exec(busy.id, ["/bin/echo", "hello"])).stdout == b"hello\n"
    job, starting = starts[ready()[-1]]
    await stage.session.stop(job.id, timeout_s=1)
    with pytest.raises(DriverError, match="the start was cancelled"):
        await starting
    await stage.session.stop(busy.id, timeout_s=10)
    await stage.driver.end(busy)
    assert job.container not in created(stage)

    del starts[job.container]
    assert not any(starting.done() for _, starting in starts.values())
    fault.release()
    await asyncio.gather(*(starting for _, starting in starts.values()))
    assert job.container not in created(stage)
    await end(stage, [job for job, _ in starts.values()])
