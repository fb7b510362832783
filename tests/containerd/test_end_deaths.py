"""Who is around a task is killed in each step of its end: its code is right, its log whole."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from plugin.host.agent.session import Handle
from proto.errors import DriverError
from tests.support.containerd_daemon import ContainerdDaemon
from tests.support.driver import Driver, Job, launched
from tests.support.traces import traces
from tests.support.victims import PLUGIN, SINGLES_AND_PAIRS, WORKER, Victims, runs
from tests.support.waiting import until
from workers import protocol

pytestmark = pytest.mark.containerd

CODE = 23
# Told to stop, it goes on until it may end.
STUBBORN = (
    "trap 'touch /local/told' TERM; i=0; touch /local/begun;"
    "until test -e /local/may; do i=$((i+1)); echo line $i; usleep 2000; done;"
    "echo $i > /local/last; exit 23"
)


class Ending:
    """A task that is told to stop, and who is killed meanwhile."""

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
        """A StopTask under way; the task knows of it and runs."""
        stopping = asyncio.create_task(self.session.stop(self.job.id, timeout_s=60))
        await until((self.local / "told").exists, 10, "no signal comes")
        return stopping

    def let_end(self) -> None:
        """Lets the task go."""
        (self.local / "may").touch()

    def hold_worker(self, *, held: bool) -> None:
        """Keeps the worker from seeing the exit; one that is killed needs no letting go."""
        assert self._around is not None
        if held or WORKER not in self._victims:
            self._around.hold_worker(held=held)

    def kill(self) -> None:
        """Kills whom this test is about."""
        assert self._around is not None
        self._around.kill(*self._victims)

    async def bring_back(self) -> None:
        """Has the others back who do not come by themselves."""
        assert self._around is not None
        await self._around.bring_back(*self._victims, handle=self._handle)

    async def stopped(self, stopping: asyncio.Task[None]) -> None:
        """The answer of StopTask; a new plugin is asked again, as Nomad does."""
        if PLUGIN in self._victims:
            with contextlib.suppress(DriverError):
                await stopping
            stopping = asyncio.create_task(self.session.stop(self.job.id, timeout_s=60))
        await stopping

    async def over(self) -> None:
        """Its exit and its log are right, and once it is destroyed nothing is left of it."""
        result = await self.session.wait(self.job.id)
        assert (result.exit_code, result.signal, result.error) == (CODE, 0, "")
        await self.driver.end(self.job)
        last = int((self.local / "last").read_text())
        assert self.job.out.decode().splitlines() == [f"line {i}" for i in range(1, last + 1)]
        around = self._around
        assert around is not None
        # Its launcher may be dead, so that nobody counts it among a launcher's children.
        await until(lambda: not runs(around.worker), 10, "a worker is left")
        await until(lambda: not traces([self.job.container]), 10, self._left)

    def _left(self) -> str:
        return str(traces([self.job.container]))

    def ended(self) -> bool:
        """Whether its process has, as containerd tells."""
        assert isinstance(self.driver.containerd, ContainerdDaemon)
        rows = [line.split() for line in self.driver.daemon.ctr("tasks", "list").splitlines()]
        return [self.job.container, "STOPPED"] in [[row[0], row[2]] for row in rows]


@pytest.fixture(params=SINGLES_AND_PAIRS, ids="+".join)
def ending(request: pytest.FixtureRequest, driver: Driver, busybox_image: str) -> Ending:
    """One for everybody who is killed, alone and in pairs."""
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
