"""Tests of plugin kills at random moments of starts and removals, with Nomad's repeated requests.

A kill cancels calls of containerd, and a real containerd leaves other leftovers than a fake.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.kernel.traces import traces
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.waiting import until

pytestmark = pytest.mark.containerd

ROUNDS = 8
TASKS = 4
LONGEST_S = 0.3
SLEEPER = "exec sleep 600"


class Deaths:
    """Has calls made for several tasks at once, and the plugin killed in the middle of them."""

    def __init__(self, driver: Driver, image: str, chance: random.Random) -> None:
        self.driver = driver
        self._options = {"image": image, "command": "/bin/sh", "args": ["-c", SLEEPER]}
        self._chance = chance

    async def start(self, job: Job) -> None:
        """Sends StartTask."""
        await self.driver.session.start(job.config, self._options)

    async def destroy(self, job: Job) -> None:
        """Sends DestroyTask."""
        await self.driver.session.destroy(job.id)

    async def kill_amid(
        self, call: Callable[[Job], Coroutine[Any, Any, None]], jobs: list[Job]
    ) -> list[Job]:
        """Kills the plugin during the calls and returns the jobs without an answer."""
        calls = [asyncio.create_task(call(job)) for job in jobs]
        await asyncio.wait(calls, timeout=self._chance.uniform(0, LONGEST_S))
        self.driver.session.kill_plugin()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await self.driver.session.launch()
        assert all(outcome is None or isinstance(outcome, DriverError) for outcome in outcomes)
        return [job for job, outcome in zip(jobs, outcomes, strict=True) if outcome is not None]


async def test_calls_cut_short_at_any_moment_and_made_again_give_one_task_and_then_none(
    driver: Driver, containerd: ContainerdDaemon, busybox_image: str
) -> None:
    seed = random.SystemRandom().getrandbits(32)
    logging.getLogger(__name__).warning("seed %d", seed)  # pytest shows the seed of a failure
    deaths = Deaths(driver, busybox_image, random.Random(seed))

    async def round_() -> None:
        jobs = [driver.task() for _ in range(TASKS)]
        names = sorted(job.container for job in jobs)
        unanswered = await deaths.kill_amid(deaths.start, jobs)
        await asyncio.gather(*(deaths.start(job) for job in unanswered))
        rows = [line.split() for line in containerd.ctr("tasks", "list").splitlines()[1:]]
        assert sorted(row[0] for row in rows if row[2] == "RUNNING") == names
        unanswered = await deaths.kill_amid(deaths.destroy, jobs)
        await asyncio.gather(*(deaths.destroy(job) for job in unanswered))
        await asyncio.to_thread(driver.wait_clean)
        await until(lambda: not traces(names), 10, lambda: str(traces(names)))

    async with launched(driver):
        await driver.output(busybox_image, "true")  # pulled: other tests kill pulls
        for _ in range(ROUNDS):
            await round_()
