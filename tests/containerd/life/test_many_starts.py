"""Many starts at once use the runtime a few at a time, in the order in which they are ready."""

from __future__ import annotations

import asyncio
import logging
import os

import pytest

from actors.actor_gateway import ActorGateway
from actors.lifecycle.admission import STARTS_PER_CORE
from actors.model.settings import TaskOptions
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.plugin.gateways import configured
from tests.support.workers.peers import LauncherProcess

AT_ONCE = (os.cpu_count() or 1) * STARTS_PER_CORE
ADMITTED = "start admitted to the runtime"
SLOW = "start is slow, later starts do not wait for this start"


async def run(gateway: ActorGateway, job: Job, image: str) -> None:
    """Starts a task that prints a line, and waits for its end."""
    job.read_logs()
    await gateway.start_task(
        job.config,
        TaskOptions(image=image, image_pull_policy="never", command="/bin/echo", args=("hello",)),
    )
    await gateway.wait_task(job.id)
    await gateway.destroy_task(job.id, force=False)
    await job.logs_end()


async def test_starts_use_the_runtime_in_turns_in_the_order_in_which_they_are_ready(
    containerd: ContainerdDaemon,
    busybox_image: str,
    driver: Driver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with launched(driver):
        await driver.output(busybox_image, "true")
    driver.session.kill_plugin()
    caplog.set_level(logging.DEBUG, logger="actors.lifecycle")
    jobs = [driver.task() for _ in range(5 * AT_ONCE)]
    with LauncherProcess() as launcher:
        async with configured(containerd, launcher.state_dir) as gateway:
            await asyncio.gather(*(run(gateway, job, busybox_image) for job in jobs))
    assert {bytes(job.out) for job in jobs} == {b"hello\n"}

    ready: dict[str, int] = {}
    order: list[int] = []
    turns: set[str] = set()
    most = 0
    for number, record in enumerate(caplog.records):
        container = vars(record)["container_id"]
        if record.msg == ADMITTED:
            order.append(ready[container])  # the number of the line before
            turns.add(container)
        elif record.msg in {SLOW, "task started"}:
            turns.discard(container)
        ready[container] = number
        most = max(most, len(turns))
    assert len(order) == len(jobs)
    assert order == sorted(order)
    assert most == AT_ONCE
