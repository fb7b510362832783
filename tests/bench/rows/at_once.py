"""The row `at_once`: many starts at the same moment, ours and by raw calls."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from actors.exec.fifo import FifoReader
from containerd.api.client import Containerd
from tests.bench.figures import Figure, Measured, Plot, PlotKind, samples
from tests.bench.raw_calls import RawTask
from tests.bench.setting import SLEEPER, Setting, loaded
from tests.support.plugin.driver import Job, launched

_SCRIPT = f"echo here; {SLEEPER}"
_ENDED_TOGETHER = 10
_MOST_PER_START = 1.05


async def measure(setting: Setting) -> Measured:
    """Measures the first outputs of 50 and 200 starts at the same moment, beside raw calls."""
    counts = setting.plan.at_once
    figures: list[Figure] = []
    plots: list[Plot] = []
    last: dict[int, float] = {}
    async with launched(setting.driver), setting.containerd() as client:
        for number, count in enumerate(counts):
            raw = await _raw(setting, client, count)
            setting.progress.step(2 * number + 1, 2 * len(counts), f"{count} by raw calls")
            ours = await _ours(setting, count)
            setting.progress.step(2 * number + 2, 2 * len(counts), f"{count} by the driver")
            figures += _figures(count, ours, raw)
            plots.append(_plot(count, ours, raw))
            last[count] = ours[-1] / count
    few, many = min(counts), max(counts)
    if few < many:
        figures.append(
            Figure(
                name=f"a start of {many} at once / of {few} at once",
                value=last[many] / last[few],
                limit=_MOST_PER_START,
                unit="x",
                note=f"{last[many] * 1000:.0f} ms against {last[few] * 1000:.0f} ms",
            )
        )
    return Measured(figures=figures, plots=plots)


async def _ours(setting: Setting, count: int) -> list[float]:
    driver = setting.driver
    jobs = [driver.task(f"t{number}") for number in range(count)]
    options = {"image": setting.image, "command": "/bin/sh", "args": ["-c", _SCRIPT]}

    async def end(job: Job) -> None:
        await driver.session.stop(job.id, timeout_s=10)
        await driver.end(job)

    spent = await _outputs(jobs, lambda job: driver.session.start(job.config, options))
    await _end(jobs, end)
    return spent


async def _raw(setting: Setting, client: Containerd, count: int) -> list[float]:
    image = await loaded(client, setting.image)
    jobs = [setting.driver.task(f"raw{number}") for number in range(count)]
    tasks = {job.id: RawTask(client, job) for job in jobs}
    for task in tasks.values():
        await task.prepare()
    spent = await _outputs(
        jobs, lambda job: tasks[job.id].start(image, setting.image, script=_SCRIPT)
    )
    await _end(jobs, lambda job: tasks[job.id].end())
    return spent


async def _outputs(jobs: Sequence[Job], start: Callable[[Job], Awaitable[object]]) -> list[float]:
    """Starts all jobs at the same moment.

    Returns:
        Seconds from this moment to each first output, the soonest first.
    """
    begun = time.perf_counter()
    spent: list[float] = []

    async def read(fifo: Path, *, timed: bool) -> None:
        reader = FifoReader(fifo)
        try:
            data = await reader.read()
            if timed:
                spent.append(time.perf_counter() - begun)
            while data:
                data = await reader.read()
        finally:
            reader.close()

    for job in jobs:
        for stream in ("stdout", "stderr"):
            fifo = job.alloc.fifo(job.config.name, stream)
            job.readers.append(asyncio.create_task(read(fifo, timed=stream == "stdout")))
    begun = time.perf_counter()
    await asyncio.gather(*(start(job) for job in jobs))
    while len(spent) < len(jobs):
        await asyncio.sleep(0.01)
    return sorted(spent)


async def _end(jobs: Sequence[Job], end: Callable[[Job], Awaitable[None]]) -> None:
    for begin in range(0, len(jobs), _ENDED_TOGETHER):
        await asyncio.gather(*(end(job) for job in jobs[begin : begin + _ENDED_TOGETHER]))


def _figures(count: int, ours: Sequence[float], raw: Sequence[float]) -> list[Figure]:
    parts = {
        "first": (ours[0], raw[0], 1.0),
        # Half of the starts are through after half of the time, unless all run in lockstep.
        "median": (statistics.median(ours), statistics.median(raw), 0.6),
        "last": (ours[-1], raw[-1], 1.12),
    }
    return [
        Figure(
            name=f"{count} starts at once: {part} output / raw calls",
            value=own / other,
            limit=limit,
            unit="x",
            note=f"{own:.2f} s against {other:.2f} s raw",
        )
        for part, (own, other, limit) in parts.items()
    ]


def _plot(count: int, ours: Sequence[float], raw: Sequence[float]) -> Plot:
    return Plot(
        title=f"{count} starts at once: first output",
        kind=PlotKind.DISTRIBUTION,
        x="s",
        y="% of the tasks",
        series={"raw calls": samples(raw), "this driver": samples(ours)},
    )
