"""A real containerd is killed under the driver and comes back: nothing is lost or left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.model.nomad import ExecInput
from tests.support.plugin.driver import Driver, launched

pytestmark = pytest.mark.containerd


async def test_a_destroy_waits_for_a_containerd_that_restarts(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, busybox_image, "exec sleep 600")
        driver.containerd.down()
        try:
            ending = asyncio.create_task(session.destroy(job.id))
            await session.inspect(job.id)  # the destroy comes first
            assert not ending.done()
        finally:
            await asyncio.to_thread(driver.containerd.start)
        await ending
        assert driver.leftovers() == []


async def _silence() -> AsyncIterator[ExecInput]:
    await asyncio.Event().wait()
    yield ExecInput()


async def test_a_commands_exit_outlives_a_restart_of_containerd(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, busybox_image, "exec sleep 600")
        script = "echo begun; until test -e /local/go; do sleep 0.05; done; exit 4"
        outputs = session.exec_streaming(job.id, ["/bin/sh", "-c", script], _silence())
        while b"begun" not in (await anext(outputs)).stdout:
            pass
        driver.containerd.down()
        await asyncio.to_thread(driver.containerd.start)
        Path(job.alloc.path, "t", "local", "go").touch()
        exits = [output.exit async for output in outputs if output.exit]
        assert [ended.exit_code for ended in exits] == [4]
        await driver.end(job)
