"""Tests of commands in a task: user, environment, streams, terminals, and abandoned commands."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator

import pytest

from actors.model.nomad import ExecInput
from proto.errors import DriverError
from tests.support.plugin.driver import SLEEPER, Driver, launched

pytestmark = pytest.mark.containerd


async def test_exec_has_the_tasks_user_env_and_own_exit_code(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task(user="bob", env={"COLOUR": "blue"})
        await driver.start(job, busybox_image, SLEEPER, cwd="/tmp", hostname="box")
        command = [
            "/bin/sh",
            "-c",
            "id -u; id -G; echo $COLOUR; pwd; hostname; echo no >&2; exit 5",
        ]
        done = await session.exec(job.id, command)
        assert done.stdout.decode().split("\n")[:-1] == [
            "1000",
            "1000 4",
            "blue",
            "/tmp",
            "box",
        ]
        assert (done.stderr, done.exit.exit_code) == (b"no\n", 5)
        with pytest.raises(DriverError, match="did not end within"):
            await session.exec(job.id, ["sleep", "60"], timeout_s=0.2)
        with pytest.raises(DriverError, match="nonsense"):
            await session.exec(job.id, ["nonsense"])
        assert (await session.exec(job.id, ["ps"])).stdout.count(b"sleep 60") == 0
        await driver.end(job)


async def _typed(*items: ExecInput) -> AsyncGenerator[ExecInput, None]:
    for item in items:
        yield item


async def test_an_exec_stream_carries_megabytes_both_ways(
    driver: Driver, busybox_image: str
) -> None:
    data = os.urandom(3 * 1024 * 1024)
    pieces = [ExecInput(stdin=data[i : i + 65536]) for i in range(0, len(data), 65536)]
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, busybox_image, SLEEPER)
        inputs = _typed(*pieces, ExecInput(), ExecInput(stdin_close=True))
        outputs = [o async for o in session.exec_streaming(job.id, ["cat"], inputs)]
        assert b"".join(output.stdout for output in outputs) == data
        last = outputs[-1]
        assert last.exit is not None
        assert last.exit.exit_code == 0
        assert (last.stdout, last.stdout_close, last.stderr_close) == (b"", False, False)
        await driver.end(job)


async def test_an_exec_with_a_terminal_starts_in_its_size_and_follows_it(
    driver: Driver, busybox_image: str
) -> None:
    script = "stty size; until [ \"$(stty size)\" = '44 22' ]; do :; done; echo resized"
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, busybox_image, SLEEPER)
        sized = asyncio.Event()

        async def typed() -> AsyncGenerator[ExecInput, None]:
            yield ExecInput(resize=(33, 101))
            yield ExecInput()
            await sized.wait()
            yield ExecInput(resize=(44, 22))

        shown = b""
        command = ["/bin/sh", "-c", script]
        async for output in session.exec_streaming(job.id, command, typed(), tty=True):
            shown += output.stdout
            if b"33 101" in shown:
                sized.set()
        assert shown == b"33 101\r\nresized\r\n"
        await driver.end(job)


async def test_an_abandoned_exec_is_killed(driver: Driver, busybox_image: str) -> None:
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, busybox_image, SLEEPER)
        stream = session.exec_streaming(job.id, ["/bin/sh", "-c", "echo on; sleep 987"], _typed())
        assert (await anext(stream)).stdout == b"on\n"
        await stream.aclose()

        async def running() -> bool:
            return b"sleep 987" in (await session.exec(job.id, ["ps"])).stdout

        while await running():
            await asyncio.sleep(0.02)
        await driver.end(job)
