"""The soak's course: tasks start, run under kills, run in peace, and end under kills."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from proto.errors import DriverError
from tests.soak import gauges
from tests.soak.agent import Agent
from tests.soak.gauges import Gauge, Reading, Sample
from tests.soak.task_life import Counts, TaskLife
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.kernel.traces import traces
from tests.support.plugin.driver import Driver
from tests.support.waiting import until
from tests.support.workers.launcher import launcher_pid

_STARTS_AT_ONCE = 6
_CALM = 0.4
_SAMPLES = 60
_SAMPLE_S = 0.5
_SETTLE_S = 2.0
_TOUCHES_PER_S = 8.0
_CHANGES_PER_S = 0.4
_CHANGES_TAKE_S = 120
"""Limits the replaced tasks of a small soak: some tasks run from the first sample to the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The size of a soak: `seconds` is the time between the last start and the first end."""

    tasks: int = 200
    seconds: float = 240
    seed: int = 0
    kill_every_s: float = 5


@dataclass(slots=True)
class Outcome:
    """The result of a soak, which has passed without a fault."""

    plan: Plan
    counts: Counts
    kills: int
    recovered: int
    slowest_recovery_s: float
    gauges: list[Gauge]
    zombies: dict[str, int]
    faults: list[str] = field(default_factory=list)


class Story:
    """One soak on a driver's containerd.

    Args:
        driver: a driver, not launched yet.
        image: an image with busybox.
        plan: the size of the soak.
        tell: takes a line about the progress.
    """

    def __init__(self, driver: Driver, image: str, plan: Plan, tell: Callable[[str], None]) -> None:
        self._driver = driver
        self._image = image
        self._plan = plan
        self._tell = tell
        self._chance = random.Random(plan.seed)
        self._agent = Agent(driver.session, random.Random(self._chance.random()), plan.kill_every_s)
        self._counts = Counts()
        self._alive: list[TaskLife] = []
        self._faults: list[str] = []
        self._containers: list[str] = []
        self._launcher = 0
        self._ends = 0
        self._samples: list[Sample] = []
        self._gate = asyncio.Semaphore(_STARTS_AT_ONCE)

    async def play(self) -> Outcome:
        """Runs the soak to its end."""
        async with self._running():
            await self._agent.insist(self._driver.session.fingerprint)
            # An interrupted pull keeps a lease for a while; another test covers such pulls.
            await self._driver.output(self._image, "true")
            fresh = await self._reading()
            self._agent.storm(on=True)
            await self._say("starting", self._fill())
            self._launcher = launcher_pid(self._driver.state_dir) or 0
            await self._say("under kills", self._live(self._plan.seconds * (1 - _CALM)))
            self._agent.storm(on=False)
            await self._agent.insist(self._driver.session.fingerprint)
            await self._settled()
            calm = len(self._samples)
            await self._say("in peace", self._live(self._plan.seconds * _CALM))
            await asyncio.to_thread(self._one_of_each)
            self._agent.storm(on=True)
            half = len(self._alive) // 2
            await self._say("ending", self._end(half, 2 * self._plan.kill_every_s))
            self._agent.storm(on=False)
            await self._say("all at once", self._end(half + 1, 0))
            self._compare(fresh, await self._reading())
            await self._nothing_left()
        return self._outcome(calm)

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        agents = [
            asyncio.create_task(self._agent.keep()),
            asyncio.create_task(self._agent.kill_at_random()),
        ]
        try:
            yield
        finally:
            ended = [agent.exception() for agent in agents if agent.done()]
            for agent in reversed(agents):
                agent.cancel()
            await asyncio.gather(*agents, return_exceptions=True)
            await self._driver.session.close()
            assert ended == [], "the soak's own agent failed"

    async def _say(self, phase: str, work: Coroutine[Any, Any, None]) -> None:
        """Awaits the work and reports the progress every few seconds."""
        job = asyncio.create_task(work)
        begun = time.monotonic()
        try:
            while not job.done():
                self._tell(
                    f"{phase:12} {time.monotonic() - begun:4.0f} s  {len(self._alive)} tasks,"
                    f" {self._agent.kills} kills, {self._agent.recovered} recovered,"
                    f" {self._counts.lines} lines, {self._counts.execs} execs,"
                    f" {self._counts.signals} signals, {len(self.faults())} faults"
                )
                await asyncio.wait([job], timeout=5)
        finally:
            job.cancel()
        await job

    async def _fill(self) -> None:
        await asyncio.gather(*(self._add() for _ in range(self._plan.tasks)))

    async def _add(self) -> None:
        number = len(self._containers)
        life = TaskLife(self._agent, self._driver, self._image, number, self._counts)
        self._containers.append(life.job.container)
        async with self._gate:
            try:
                await life.begin()
            except (AssertionError, DriverError) as error:
                self._faults.append(f"{life.job.id} does not start: {error}")
                return
        self._alive.append(life)

    async def _live(self, seconds: float) -> None:
        """Touches tasks, replaces some, and samples all processes."""
        changes = min(_CHANGES_PER_S, self._plan.tasks / _CHANGES_TAKE_S)
        jobs = [
            asyncio.create_task(self._often(_TOUCHES_PER_S, self._touch)),
            asyncio.create_task(self._often(changes, self._replace)),
            asyncio.create_task(self._sample()),
        ]
        await asyncio.wait(jobs, timeout=seconds)
        for job in jobs:
            job.cancel()
        for outcome in await asyncio.gather(*jobs, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _often(self, per_s: float, what: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Starts `what` at random moments until cancelled, then waits for all that has started."""
        begun: list[asyncio.Task[None]] = []
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(self._chance.expovariate(per_s))
                begun.append(asyncio.create_task(what()))
        await asyncio.gather(*begun)

    async def _touch(self) -> None:
        life = self._chance.choice(self._alive)
        await life.touch(self._chance)

    async def _replace(self) -> None:
        life = self._alive.pop(self._chance.randrange(len(self._alive)))
        await self._finish(life)
        await self._add()

    async def _finish(self, life: TaskLife) -> None:
        self._ends += 1
        await life.end(stop=self._ends % 2 == 0)
        self._faults += life.faults

    async def _end(self, count: int, within_s: float) -> None:
        lives, self._alive = self._alive[:count], self._alive[count:]

        async def one(life: TaskLife) -> None:
            await asyncio.sleep(self._chance.uniform(0, within_s))
            await self._finish(life)

        await asyncio.gather(*(one(life) for life in lives))

    async def _sample(self) -> None:
        while True:
            if self._agent.up:
                self._samples.append(await asyncio.to_thread(gauges.sample, self._pids()))
            await asyncio.sleep(max(_SAMPLE_S, self._plan.seconds / _SAMPLES))

    def _pids(self) -> dict[str, list[int]]:
        daemon = self._driver.containerd
        assert isinstance(daemon, ContainerdDaemon)
        assert daemon.process is not None
        return {
            gauges.PLUGIN: [self._driver.session.pid],
            gauges.LAUNCHER: [self._launcher],
            gauges.WORKER: gauges.workers_of(self._launcher),
            gauges.CONTAINERD: [daemon.process.pid],
            gauges.SHIM: daemon.shim_pids(),
        }

    async def _reading(self) -> Reading:
        found = await asyncio.to_thread(gauges.read, self._driver.session.pid)
        assert found is not None, "the plugin is not there"
        return found

    async def _settled(self) -> None:
        """Waits until the plugin has its tasks and streams again: its descriptors stop growing."""
        before, now = -1, (await self._reading()).fds
        while now > before:
            await asyncio.sleep(_SETTLE_S)
            before, now = now, (await self._reading()).fds

    def _compare(self, fresh: Reading, after: Reading) -> None:
        """Checks that the plugin without tasks holds as much as before the first task."""
        for name, before, now, more in (
            ("threads", fresh.threads, after.threads, gauges.MORE_THREADS[gauges.PLUGIN]),
            ("fds", fresh.fds, after.fds, gauges.MORE_FDS[gauges.PLUGIN]),
        ):
            if now > before + more:
                self._faults.append(
                    f"the plugin has {now} {name} after the last task, and had {before} at first"
                )

    def _one_of_each(self) -> None:
        """Checks that every task runs, once, and no other process does."""
        daemon = self._driver.containerd
        assert isinstance(daemon, ContainerdDaemon)
        rows = [line.split() for line in daemon.ctr("tasks", "list").splitlines()[1:]]
        there = sorted(row[0] for row in rows if row[2] == "RUNNING")
        wanted = sorted(life.job.container for life in self._alive)
        if there != wanted:
            self._faults.append(f"{len(there)} tasks run in containerd, not {len(wanted)}")

    async def _nothing_left(self) -> None:
        try:
            await asyncio.to_thread(self._driver.wait_clean)
            await until(lambda: not self._traces(), 10, lambda: str(self._traces()))
        except AssertionError as error:
            self._faults.append(f"left over: {str(error)[:500]}")

    def _traces(self) -> list[str]:
        return traces(self._containers)

    def faults(self) -> list[str]:
        """Lists the faults so far."""
        living = [fault for life in self._alive for fault in life.faults]
        return self._agent.faults + self._faults + living

    def _outcome(self, calm: int) -> Outcome:
        """Compares workers and launcher over both windows, the plugin over the peaceful window."""
        known = [
            Gauge(kind, self._samples[calm:] if kind == gauges.PLUGIN else self._samples)
            for kind in gauges.KINDS
        ]
        for gauge in known:
            if gauge.kind in gauges.OURS:
                gauge.judge()
        zombies = gauges.zombies(self._samples)
        faults = self.faults() + [fault for gauge in known for fault in gauge.faults]
        faults += [f"{kind}: {count} zombies" for kind, count in zombies.items() if count]
        if not self._agent.kills:
            faults.append("the plugin was never killed: the soak was too short")
        return Outcome(
            plan=self._plan,
            counts=self._counts,
            kills=self._agent.kills,
            recovered=self._agent.recovered,
            slowest_recovery_s=self._agent.slowest_recovery_s,
            gauges=known,
            zombies=zombies,
            faults=faults,
        )
