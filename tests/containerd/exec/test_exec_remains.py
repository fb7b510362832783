"""Tests of processes started by a command: the processes end with an abandoned command."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from actors.model.nomad import ExecInput
from proto.errors import DriverError
from tests.support.needs import need_program
from tests.support.nomad.leftovers import pids_with
from tests.support.plugin.driver import Driver, launched
from tests.support.waiting import until

pytestmark = pytest.mark.containerd

LEAVES = "sleep 600.{0} & sh -c 'sleep 601.{0}; true' & echo begun; sleep 602.{0}; true"


async def _silence() -> AsyncIterator[ExecInput]:
    await asyncio.Event().wait()
    yield ExecInput()


def of(number: int) -> list[int]:
    """Returns the sleeps of a script, on the host."""
    return [pid for second in (600, 601, 602) for pid in pids_with(f"{second}.{number}")]


@pytest.mark.parametrize("runtime", ["runc", "crun"])
async def test_what_a_command_has_started_goes_when_its_caller_goes(
    runtimes_driver: Driver, busybox_image: str, runtime: str
) -> None:
    need_program(runtime)
    async with launched(runtimes_driver) as session:
        job = runtimes_driver.task()
        await runtimes_driver.start(job, busybox_image, "echo on; sleep 603.1", runtime=runtime)
        command = ["/bin/sh", "-c", LEAVES.format(71)]
        outputs = session.exec_streaming(job.id, command, _silence())
        async with contextlib.aclosing(outputs):
            while b"begun" not in (await anext(outputs)).stdout:
                pass
            await until(lambda: len(of(71)) >= 3, 10)
        await until(lambda: not of(71), 10, lambda: f"{of(71)} are left")
        with pytest.raises(DriverError, match="did not end within"):
            await session.exec(job.id, ["/bin/sh", "-c", LEAVES.format(72)], timeout_s=1.0)
        await until(lambda: not of(72), 10, lambda: f"{of(72)} are left")
        assert pids_with("603.1")
        await runtimes_driver.end(job)


async def test_what_a_command_has_left_in_the_background_stays_when_it_ends(
    runtimes_driver: Driver, busybox_image: str
) -> None:
    async with launched(runtimes_driver) as session:
        job = runtimes_driver.task()
        await runtimes_driver.start(job, busybox_image, "exec sleep 603.2")
        script = "sleep 600.73 >/dev/null 2>&1 & exit 4"
        done = await session.exec(job.id, ["/bin/sh", "-c", script])
        assert done.exit.exit_code == 4
        assert of(73)
        await runtimes_driver.end(job)
        await until(lambda: not of(73), 10)
