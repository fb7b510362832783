"""Health checks of real tasks: events, a restart, and the deaths of plugin and worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.agent_session import AgentSession
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.registries import images
from tests.support.registries.registry import Registry
from tests.support.waiting import until
from tests.support.workers.health import running
from tests.support.workers.launcher import worker_pid

pytestmark = pytest.mark.containerd

SLEEPS = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
# The check runs as the task does: with the task's user and environment.
WELL = 'test "$(id -u):$GREETING" = 7:hello && test -e /local/well || { echo sick; exit 4; }'


@contextlib.asynccontextmanager
async def told(session: AgentSession) -> AsyncIterator[list[str]]:
    """Yields a list of the messages on health checks from now on."""
    messages: list[str] = []

    async def listen() -> None:
        async for event in session.events():
            if "health" in event.message.lower():
                messages.append(event.message)  # noqa: PERF401 - they are read as they come

    listening = asyncio.create_task(listen())
    try:
        yield messages
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def check(test: str, **more: Any) -> dict[str, Any]:
    """Returns a block with short times."""
    return {"test": test, "interval": "100ms", "timeout": "20s", "retries": 2, **more}


def well(job: Job) -> Path:
    return Path(job.alloc.path, "t", "local", "well")


async def test_an_unhealthy_task_ends_as_a_failure_though_the_plugin_is_dead(
    driver: Driver, busybox_image: str
) -> None:
    job = driver.task(env={"GREETING": "hello"}, user="7")
    well(job).touch()
    block = check(WELL, on_failure="restart")
    async with launched(driver) as session, told(session) as messages:
        handle = await driver.start(job, busybox_image, SLEEPS, healthcheck=block)
        assert (await session.inspect(job.id)).driver_attributes["health"] == "starting"
        await until(lambda: messages, 20, "no event")
        assert messages == ["Health check: healthy"]
        assert (await session.inspect(job.id)).driver_attributes["health"] == "healthy"
        session.kill_plugin()
    well(job).unlink()
    record = driver.state_dir / "tasks" / job.container / "exit"
    await until(record.exists, 20, "the task does not end")
    async with launched(driver) as session, told(session) as messages:
        await session.recover(handle)
        result = await session.wait(job.id)
        assert (result.exit_code, result.signal) == (1, 0)
        assert result.error == (
            "unhealthy: the health check failed 2 times in a row (exit code 4: sick)"
        )
        await until(lambda: messages, 20, "no event")
        await driver.end(job)
        (text,) = messages
        assert text == (
            "Health check: unhealthy (exit code 4: sick);"
            " the task is ended, so that its restart policy applies"
        )


async def test_a_check_goes_on_after_the_deaths_of_plugin_and_worker(
    driver: Driver, busybox_image: str
) -> None:
    job = driver.task()
    directory = driver.state_dir / "tasks" / job.container
    sleep = ("sleep", str(10**9 + int(job.id[:6], 16)))  # no other sleep lasts as long
    hangs = f"test -e /local/well || {' '.join(sleep)}; true"
    async with launched(driver) as session:
        handle = await driver.start(job, busybox_image, SLEEPS, healthcheck=check(hangs))
        await until(lambda: running(*sleep), 20, "no check begins")
        session.kill_plugin()
    old = worker_pid(directory)
    assert old is not None
    os.kill(old, signal.SIGKILL)
    well(job).touch()
    async with launched(driver) as session, told(session) as messages:
        await session.recover(handle)
        await until(lambda: messages, 20, "no event")
        assert messages == ["Health check: healthy"]
        assert running(*sleep) == []
        await session.stop(job.id, timeout_s=20)
        result = await session.wait(job.id)
        assert (result.exit_code, result.error) == (0, "")
        await driver.end(job)


async def test_the_check_of_an_image_runs_if_the_operator_says_so_and_the_job_agrees(
    containerd: ContainerdDaemon, registry: Registry, tmp_path: Path
) -> None:
    config = {
        "Cmd": ["/bin/sh", "-c", SLEEPS],
        "Healthcheck": {"Test": ["CMD-SHELL", "echo fine"], "Interval": 200_000_000},
    }
    image = images.push(
        registry.host, "checked", "1", images.build([images.busybox_layer()], config)
    )
    driver = Driver(containerd, tmp_path, {"image_healthchecks": True})
    try:
        async with launched(driver) as session, told(session) as messages:
            off, on = driver.task(), driver.task()
            await driver.start(off, image, healthcheck={"disable": True})
            await driver.start(on, image)
            await until(lambda: messages, 20, "no event")
            assert "health" not in (await session.inspect(off.id)).driver_attributes
            assert not (driver.state_dir / "tasks" / off.container / "health").exists()
            for job in (off, on):
                await session.stop(job.id, timeout_s=20)
                await driver.end(job)
            assert messages == ["Health check: healthy"]
        driver.wait_clean()
    finally:
        driver.close()


async def test_the_check_of_an_image_does_not_run_by_default(
    driver: Driver, registry: Registry
) -> None:
    config = {"Cmd": ["/bin/sh", "-c", SLEEPS], "Healthcheck": {"Test": ["CMD", "/bin/true"]}}
    image = images.push(
        registry.host, "checked", "2", images.build([images.busybox_layer()], config)
    )
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, image)
        assert "health" not in (await session.inspect(job.id)).driver_attributes
        assert not (driver.state_dir / "tasks" / job.container / "health").exists()
        await driver.end(job)
