"""Tests of a log reader that comes after the task's end, and gets the rest and the end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.plugin.driver import Driver, launched
from tests.support.waiting import until
from tests.support.workers.launcher import worker_pid

pytestmark = pytest.mark.containerd

SCRIPT = "seq 1 10000; until test -e /local/go; do usleep 20000; done; seq 10001 12000; exit 23"
TEXT = b"".join(b"%d\n" % number for number in range(1, 12_001))


@pytest.mark.parametrize("victims", [(), ("worker",), ("plugin",), ("worker", "plugin")], ids=str)
async def test_a_late_reader_gets_the_whole_log_and_its_end(
    driver: Driver, busybox_image: str, victims: tuple[str, ...]
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        options = {"image": busybox_image, "command": "/bin/sh", "args": ["-c", SCRIPT]}
        handle = await session.start(job.config, options)
        directory = driver.state_dir / "tasks" / job.container
        if "plugin" in victims:
            session.kill_plugin()
        if "worker" in victims:
            before = worker_pid(directory) or 0
            os.kill(before, signal.SIGKILL)
        if "plugin" in victims:
            await session.launch()
            await session.recover(handle)
        if "worker" in victims:
            await until(lambda: worker_pid(directory) not in {None, before}, 10)
        Path(job.alloc.path, "t", "local", "go").touch()
        assert (await session.wait(job.id)).exit_code == 23
        job.read_logs()
        await job.logs_end()
        assert (bytes(job.out), bytes(job.err)) == (TEXT, b"")
        await session.destroy(job.id)


async def test_a_task_that_ended_while_its_plugin_was_away_gives_its_log_to_a_late_reader(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        options = {"image": busybox_image, "command": "/bin/sh", "args": ["-c", SCRIPT]}
        handle = await session.start(job.config, options)
        session.kill_plugin()
        Path(job.alloc.path, "t", "local", "go").touch()
        exit_record = driver.state_dir / "tasks" / job.container / "exit"
        await until(exit_record.exists, 10)
        await session.launch()
        await session.recover(handle)
        job.read_logs()
        await job.logs_end()
        assert bytes(job.out) == TEXT
        assert (await session.wait(job.id)).exit_code == 23
        await session.destroy(job.id)
