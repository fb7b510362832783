"""Tests of a stats interval beyond the kernel's range, which costs no worker."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver, launched
from tests.support.workers.launcher import worker_pids

pytestmark = pytest.mark.containerd


async def test_whoever_asks_rarely_for_stats_gets_them_from_one_worker(
    containerd: ContainerdDaemon, tmp_path: Path, busybox_image: str
) -> None:
    driver = Driver(containerd, tmp_path, {"stats_interval": "720h"})
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, busybox_image, "sleep 600")
        workers = worker_pids(driver.state_dir)
        for _ in range(3):
            async with contextlib.aclosing(session.stats(job.id, 1.0)) as stats:
                await asyncio.wait_for(anext(stats), 10)
            await session.exec(job.id, ["true"])
        assert worker_pids(driver.state_dir) == workers
        assert (driver.state_dir / "launcher.log").read_text() == ""
        await session.stop(job.id, 0.1)
        await driver.end(job)
    driver.wait_clean()
    driver.close()
