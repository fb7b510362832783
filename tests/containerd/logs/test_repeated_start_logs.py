"""Tests of a surviving task that Nomad starts again: one log reader gets both lives whole."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal

import pytest

from tests.support.plugin.driver import Driver, launched
from tests.support.waiting import until
from tests.support.workers.launcher import worker_pid
from tests.support.workers.peers import LogReader, has_ended

pytestmark = pytest.mark.containerd


@pytest.mark.parametrize("worker_too", [False, True], ids=["plugin", "plugin+worker"])
async def test_a_start_that_is_made_again_has_its_whole_log_though_the_old_shim_ends_amid_it(
    driver: Driver, busybox_image: str, worker_too: bool
) -> None:
    job = driver.task()
    out, err = (LogReader(job.alloc.fifo("t", stream)) for stream in ("stdout", "stderr"))

    def options(script: str) -> dict[str, object]:
        return {"image": busybox_image, "command": "/bin/sh", "args": ["-c", script]}

    async def first() -> None:
        """Starts a task whose agent, plugin and worker die before the agent has the answer."""
        await driver.session.launch()
        await driver.session.start(job.config, options("echo first; exec sleep 600"))
        await until(lambda: out.data == b"first\n", 20, "no first line")
        worker = worker_pid(driver.state_dir / "tasks" / job.container)
        driver.session.kill_plugin()
        if worker_too:
            assert worker is not None
            os.kill(worker, signal.SIGKILL)
            await until(lambda: has_ended(worker), 10, "the worker lives")

    async def again() -> None:
        async with launched(driver) as session:
            config = dataclasses.replace(job.config, id=f"{job.id}2")
            await session.start(config, options("seq 1 1000; echo last >&2"))
            assert (await session.wait(config.id)).exit_code == 0
            whole = "".join(f"{number}\n" for number in range(1, 1001))
            assert (await asyncio.to_thread(out.finish)).decode() == f"first\n{whole}"
            assert await asyncio.to_thread(err.finish) == b"last\n"
            await session.destroy(config.id)

    await first()
    await again()
