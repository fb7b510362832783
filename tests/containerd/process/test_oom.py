"""Tests of kills by memory shortage: kills that end the task, and kills that the task survives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.needs import need_program
from tests.support.plugin.agent_session import AgentSession
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.waiting import until

pytestmark = pytest.mark.containerd

# A child that exceeds the memory limit, and is killed; the shell goes on.
GREEDY = "sh -c 'tail /dev/zero'"
MEMORY_MB = 32


@pytest.fixture
def driver(runtimes_driver: Driver) -> Driver:
    """Returns a driver whose containerd finds every runtime of the tests."""
    return runtimes_driver


@contextlib.asynccontextmanager
async def told(session: AgentSession) -> AsyncIterator[list[str]]:
    """Yields a list of the messages of all events from now on."""
    messages: list[str] = []

    async def listen() -> None:
        async for event in session.events():
            messages.append(event.message)  # noqa: PERF401 - they are read as they come

    listening = asyncio.create_task(listen())
    try:
        yield messages
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def of_kills(messages: list[str]) -> list[str]:
    return [text for text in messages if text.startswith("The kernel killed")]


def may_go(job: Job) -> None:
    """Has the script of `WAITS` go on."""
    Path(job.alloc.path, "t", "local", "go").touch()


WAITS = "until test -e /local/go; do sleep 0.05; done;"


@pytest.mark.parametrize("runtime", ["runc", "crun"])
async def test_a_task_that_outlives_a_kill_tells_it_and_ends_with_its_own_code(
    driver: Driver, busybox_image: str, runtime: str
) -> None:
    need_program(runtime)
    async with launched(driver) as session, told(session) as messages:
        job = driver.task(memory_mb=MEMORY_MB)
        script = f"{GREEDY}; echo on; {WAITS} exit 3"
        await driver.start(job, busybox_image, script, runtime=runtime)
        await until(lambda: of_kills(messages), 30, lambda: str(messages))
        (text,) = of_kills(messages)
        assert text == (
            "The kernel killed processes of the task, 1 so far: out of memory. The task"
            " continues; raise the task's limit (resources.memory), or lower the task's use of"
            " memory"
        )
        may_go(job)
        result = await session.wait(job.id)
        assert (result.exit_code, result.oom_killed) == (3, False)
        await driver.end(job)
        assert len(of_kills(messages)) == 1


async def test_a_task_that_ends_right_after_a_kill_says_so_and_was_not_killed(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session, told(session) as messages:
        job = driver.task(memory_mb=MEMORY_MB)
        await driver.start(job, busybox_image, f"{GREEDY}; exit 3")
        result = await session.wait(job.id)
        assert (result.exit_code, result.signal, result.oom_killed) == (3, 0, False)
        await until(lambda: of_kills(messages), 10, lambda: str(messages))
        assert "The task ended with code 3" in of_kills(messages)[0]
        await driver.end(job)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
@pytest.mark.parametrize(
    "script", ["exec tail /dev/zero", f"{GREEDY}; exit $?"], ids=["first process", "its child"]
)
async def test_a_task_that_a_kill_for_memory_ends_was_killed_so(
    driver: Driver, busybox_image: str, script: str, runtime: str
) -> None:
    need_program(runtime)
    async with launched(driver) as session, told(session) as messages:
        job = driver.task(memory_mb=MEMORY_MB)
        await driver.start(job, busybox_image, script, runtime=runtime)
        result = await session.wait(job.id)
        assert (result.exit_code, result.signal, result.oom_killed) == (137, 9, True)
        await until(lambda: of_kills(messages), 10, lambda: str(messages))
        assert of_kills(messages) == ["The kernel killed the task: out of memory"]
        await driver.end(job)


@pytest.mark.parametrize("by", ["stop", "signal", "host"])
async def test_sigkill_of_another_is_no_kill_for_memory_though_a_child_had_one(
    driver: Driver, busybox_image: str, by: str
) -> None:
    async with launched(driver) as session, told(session) as messages:
        job = driver.task(memory_mb=MEMORY_MB)
        await driver.start(job, busybox_image, f"trap '' TERM; {GREEDY}; echo on; exec sleep 600")
        await until(lambda: job.out == b"on\n", 30)
        if by == "host":
            await until(lambda: of_kills(messages), 30, lambda: str(messages))
            os.kill(_pid(driver, job), signal.SIGKILL)
        elif by == "signal":
            await session.signal(job.id, "SIGKILL")
        else:
            await session.stop(job.id, 0.1)
        result = await session.wait(job.id)
        assert (result.exit_code, result.signal, result.oom_killed) == (137, 9, False)
        await driver.end(job)


async def test_kills_that_come_while_the_plugin_is_away_are_told_once_when_it_is_back(
    driver: Driver, busybox_image: str
) -> None:
    job = driver.task(memory_mb=MEMORY_MB)
    await driver.session.launch()
    script = f"{WAITS} {GREEDY}; {GREEDY}; echo on; exec sleep 600"
    handle = await driver.start(job, busybox_image, script)
    driver.session.kill_plugin()
    may_go(job)
    await until(lambda: job.out == b"on\n", 30)
    async with launched(driver) as session, told(session) as messages:
        await session.recover(handle)
        await until(lambda: of_kills(messages), 30, lambda: str(messages))
        assert "2 so far" in of_kills(messages)[0]
        await driver.end(job)


def _pid(driver: Driver, job: Job) -> int:
    assert isinstance(driver.containerd, ContainerdDaemon)
    rows = [line.split() for line in driver.daemon.ctr("tasks", "ls").splitlines()]
    (pid,) = [int(row[1]) for row in rows if row[0] == job.container]
    return pid
