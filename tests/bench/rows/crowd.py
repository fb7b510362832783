"""The row `crowd`: memory and CPU of many idle tasks."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import statistics
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from tests.bench import processes
from tests.bench.figures import Figure, Measured, Plot, PlotKind
from tests.bench.setting import SLEEPER, Setting
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.workers.launcher import launcher_pid, worker_pids

_BATCH = 5
_SETTLE_S = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Cost of `count` tasks: memory in MiB PSS, CPU in % of one core."""

    count: int
    workers_mb: Sequence[float]
    plugin_mb: float
    workers_idle: float
    idle: float
    watched: float = 0.0
    """With statistics of each task every second; plugin, launcher and workers."""


async def measure(setting: Setting) -> Measured:
    """Measures memory and CPU of tasks, without and with a reader of statistics."""
    most = setting.plan.tasks
    counts = sorted({max(1, most // 5), max(1, most // 2), most})
    found: list[Crowd] = []
    async with launched(setting.driver):
        jobs: list[Job] = []
        for count in counts:
            await _start(setting, jobs, count)
            found.append(await _crowd(setting, count))
            setting.progress.step(len(found), 2 * len(counts), f"with {count} tasks")
        # Last: a worker copies pages for its first sample, and keeps the copies.
        for number, crowd in enumerate(found):
            watched = await _watched(setting, jobs[: crowd.count])
            found[number] = dataclasses.replace(crowd, watched=watched)
            done = len(counts) + number + 1
            setting.progress.step(done, 2 * len(counts), f"with statistics of {crowd.count} tasks")
        for job in jobs:
            await setting.driver.session.stop(job.id, timeout_s=10)
            await setting.driver.end(job)
    return Measured(figures=_figures(found[-1]), plots=_plots(found))


async def _start(setting: Setting, jobs: list[Job], count: int) -> None:
    while len(jobs) < count:
        number = len(jobs)
        batch = [
            setting.driver.task(f"t{name}") for name in range(number, min(number + _BATCH, count))
        ]
        await asyncio.gather(*(setting.driver.start(job, setting.image, SLEEPER) for job in batch))
        jobs += batch
    await asyncio.sleep(_SETTLE_S)


async def _crowd(setting: Setting, count: int) -> Crowd:
    driver, seconds = setting.driver, setting.plan.seconds
    workers = worker_pids(driver.state_dir)
    each = [processes.pss_mb(pid) for pid in workers]
    plugin_mb = processes.pss_mb(driver.session.pid)
    workers_idle, idle = await asyncio.gather(
        processes.cpu_percent(workers, seconds),
        processes.cpu_percent(_everybody(driver), seconds),
    )
    return Crowd(
        count=count,
        workers_mb=each,
        plugin_mb=plugin_mb,
        workers_idle=workers_idle,
        idle=idle,
    )


async def _watched(setting: Setting, jobs: list[Job]) -> float:
    driver = setting.driver
    async with watching(driver, jobs):
        await asyncio.sleep(_SETTLE_S)
        return await processes.cpu_percent(_everybody(driver), setting.plan.seconds)


def _everybody(driver: Driver) -> list[int]:
    """Returns the processes of the driver: plugin, launcher and workers."""
    launcher = launcher_pid(driver.state_dir)
    return [*worker_pids(driver.state_dir), driver.session.pid, *([launcher] if launcher else [])]


@contextlib.asynccontextmanager
async def watching(driver: Driver, jobs: list[Job]) -> AsyncIterator[None]:
    async def watch(job: Job) -> None:
        async for _ in driver.session.stats(job.id, 1.0):
            pass

    watchers = [asyncio.create_task(watch(job)) for job in jobs]
    try:
        yield
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)


def _figures(crowd: Crowd) -> list[Figure]:
    label = f"{crowd.count} tasks"
    each = crowd.workers_mb
    return [
        Figure(name=f"{label}: each worker", value=max(each), limit=1.3, unit="MB PSS",
               note=f"median {statistics.median(each):.2f}"),
        Figure(name=f"{label}: plugin", value=crowd.plugin_mb, limit=45, unit="MB PSS"),
        Figure(name=f"{label}: workers idle", value=crowd.workers_idle, limit=0,
               unit="% of a core", note=f"plugin and launcher too: {crowd.idle:.2f}"),
        Figure(name=f"{label}: stats every second", value=crowd.watched, limit=2.5,
               unit="% of a core", note="plugin, launcher and workers"),
    ]  # fmt: skip


def _plots(found: Sequence[Crowd]) -> list[Plot]:
    return [
        Plot(
            title="Memory",
            kind=PlotKind.LINES,
            x="tasks",
            y="MB PSS",
            series={
                "plugin": [(one.count, one.plugin_mb) for one in found],
                "all workers": [(one.count, sum(one.workers_mb)) for one in found],
            },
        ),
        Plot(
            title="CPU of plugin, launcher and workers",
            kind=PlotKind.LINES,
            x="tasks",
            y="% of a core",
            series={
                "idle": [(one.count, one.idle) for one in found],
                "statistics every second": [(one.count, one.watched) for one in found],
            },
        ),
    ]
