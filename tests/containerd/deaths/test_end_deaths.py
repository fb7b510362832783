"""Tests of a task's end with a death nearby in each step: the exit code and the log are right."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from plugin.host.agent.session import Handle
from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.kernel.traces import traces
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.plugin.victims import PLUGIN, SINGLES_AND_PAIRS, WORKER, Victims, runs
from tests.support.waiting import until
from workers import protocol

pytestmark = pytest.mark.containerd

CODE = 23
# After the stop signal the task runs on until the test allows the end.
STUBBORN = (
    "trap 'touch /local/told' TERM; i=0; touch /local/begun;"
    "until test -e /local/may; do i=$((i+1)); echo line $i; usleep 2000; done;"
    "echo $i > /local/last; exit 23"
)


class Ending:
    """A task that receives a stop, and the victims that are killed meanwhile."""

    def __init__(self, driver: Driver, image: str, victims: tuple[str, ...]) -> None:
        self.driver = driver
        self.session = driver.session
        self.job: Job = driver.task()
        self.local = Path(self.job.alloc.path, "t", "local")
        self.state = driver.state_dir / "tasks" / self.job.container
        self._image = image
        self._victims = victims
        self._handle: Handle | None = None
        self._around: Victims | None = None

    async def begin(self) -> None:
        """Starts the task."""
        self._handle = await self.driver.start(self.job, self._image, STUBBORN)
        self._around = Victims(self.driver, self.job)
        await until(lambda: (self.local / "begun").exists() and self.job.out, 10, "no task")

    async def told(self) -> asyncio.Task[None]:
        """Starts a StopTask; the task has received the signal and keeps running."""
        stopping = asyncio.create_task(self.session.stop(self.job.id, timeout_s=60))
        await until((self.local / "told").exists, 10, "no signal comes")
        return stopping

    def let_end(self) -> None:
        """Lets the task go."""
        (self.local / "may").touch()

    def hold_worker(self, *, held: bool) -> None:
        """Keeps the worker from seeing the exit; a killed worker needs no release."""
        assert self._around is not None
        if held or WORKER not in self._victims:
            self._around.hold_worker(held=held)

    def kill(self) -> None:
        """Kills the victims of the test."""
        assert self._around is not None
        self._around.kill(*self._victims)

    async def bring_back(self) -> None:
        """Brings back the victims that do not come back by themselves."""
        assert self._around is not None
        await self._around.bring_back(*self._victims, handle=self._handle)

    async def stopped(self, stopping: asyncio.Task[None]) -> None:
        """Returns the answer of StopTask; a new plugin gets the request again, as from Nomad."""
        if PLUGIN in self._victims:
            with contextlib.suppress(DriverError):
                await stopping
            stopping = asyncio.create_task(self.session.stop(self.job.id, timeout_s=60))
        await stopping

    async def over(self) -> None:
        """Checks exit and log of the task, and that a destroy leaves nothing of the task."""
        result = await self.session.wait(self.job.id)
        assert (result.exit_code, result.signal, result.error) == (CODE, 0, "")
        await self.driver.end(self.job)
        last = int((self.local / "last").read_text())
        assert self.job.out.decode().splitlines() == [f"line {i}" for i in range(1, last + 1)]
        around = self._around
        assert around is not None
        # The launcher may be dead, so no process counts the worker among a launcher's children.
        await until(lambda: not runs(around.worker), 10, "a worker is left")
        await until(lambda: not traces([self.job.container]), 10, self._left)

    def _left(self) -> str:
        return str(traces([self.job.container]))

    def ended(self) -> bool:
        """Tells whether the task's process has ended, by containerd's list."""
        assert isinstance(self.driver.containerd, ContainerdDaemon)
        rows = [line.split() for line in self.driver.daemon.ctr("tasks", "list").splitlines()]
        return [self.job.container, "STOPPED"] in [[row[0], row[2]] for row in rows]


@pytest.fixture(params=SINGLES_AND_PAIRS, ids="+".join)
def ending(request: pytest.FixtureRequest, driver: Driver, busybox_image: str) -> Ending:
    """Yields an end for every victim, alone and in pairs."""
    return Ending(driver, busybox_image, request.param)


async def test_a_stop_ends_as_it_should_whoever_is_killed_in_it(ending: Ending) -> None:
    async with launched(ending.driver):
        await ending.begin()
        stopping = await ending.told()
        ending.kill()
        await ending.bring_back()
        ending.let_end()
        await ending.stopped(stopping)
        await ending.over()


async def test_an_exit_that_nobody_has_recorded_yet_is_known_whoever_is_killed(
    ending: Ending,
) -> None:
    async with launched(ending.driver):
        await ending.begin()
        stopping = await ending.told()
        ending.hold_worker(held=True)
        ending.let_end()
        await until(ending.ended, 10, "the task does not end")
        assert not stopping.done()
        assert not (ending.state / protocol.EXIT_RECORD).exists()
        ending.kill()
        ending.hold_worker(held=False)
        await ending.bring_back()
        await ending.stopped(stopping)
        await ending.over()


async def test_an_exit_that_is_recorded_is_known_whoever_is_killed_before_the_destroy(
    ending: Ending,
) -> None:
    async with launched(ending.driver):
        await ending.begin()
        stopping = await ending.told()
        ending.let_end()
        await stopping
        assert (ending.state / protocol.EXIT_RECORD).exists()
        ending.kill()
        await ending.bring_back()
        await ending.over()
