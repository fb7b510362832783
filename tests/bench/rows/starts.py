"""The row `starts`: StartTask and StopTask of a present image, beside raw calls and `ctr run`."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass, field

from containerd.api.client import Containerd
from containerd.image.oci_image import LoadedImage
from tests.bench import raw_calls
from tests.bench.figures import Figure, Measured, Plot, PlotKind, percentile, ratio, samples
from tests.bench.setting import SLEEPER, Setting, loaded
from tests.support.plugin.driver import Driver, launched

_CTR_EVERY = 3


@dataclass(slots=True)
class Starts:
    """Milliseconds of starts in turns: raw calls, ours, `ctr run`, and of our stops."""

    raw: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    ctr: list[float] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)


async def in_turns(setting: Setting, client: Containerd, reference: str, rounds: int) -> Starts:
    """Measures StartTask beside prepare, container, task create and task start, in turns.

    `ctr run` takes part in every third round. The first round warms all parts up.
    """
    image = await loaded(client, reference)
    found = Starts()
    for number in range(rounds + 1):
        taken = await _round(setting.driver, client, image, reference)
        if number:
            found.raw += taken.raw
            found.ours += taken.ours
            found.stops += taken.stops
        if number % _CTR_EVERY == 1:
            found.ctr.append(await _by_ctr(setting.driver, client, reference, f"ctr-{number}"))
        setting.progress.step(number, rounds)
    return found


async def _round(driver: Driver, client: Containerd, image: LoadedImage, reference: str) -> Starts:
    spent = await raw_calls.spent(client, image, reference, driver.task("raw"))
    job = driver.task()
    job.read_logs()  # as before the raw calls
    config = {"image": reference, "command": "/bin/sh", "args": ["-c", SLEEPER]}
    begun = time.perf_counter()
    await driver.session.start(job.config, config)
    started = time.perf_counter() - begun
    await driver.session.stop(job.id, timeout_s=10)
    returned_ns = time.time_ns()
    ended_ns = (await driver.session.inspect(job.id)).completed_at_ns
    await driver.end(job)
    return Starts(
        raw=[spent * 1000],
        ours=[started * 1000],
        stops=[(returned_ns - ended_ns) / 1e6],
    )


async def _by_ctr(driver: Driver, client: Containerd, reference: str, name: str) -> float:
    """Returns the milliseconds of `ctr run --detach`, the program's own start included."""
    words = ("run", "--detach", "--null-io", reference, name, "/bin/sh", "-c", SLEEPER)
    begun = time.perf_counter()
    await asyncio.to_thread(driver.daemon.ctr, *words)
    spent = (time.perf_counter() - begun) * 1000
    await client.tasks.kill(name, 9, everyone=True)
    await client.tasks.wait(name)
    await client.tasks.delete(name)
    await client.containers.delete(name)
    await client.snapshots.remove(client.default_snapshotter, name)
    return spent


def figures(found: Starts) -> list[Figure]:
    """Returns the figures of starts beside their limits."""
    slow, slow_raw = percentile(found.ours, 99), percentile(found.raw, 99)
    return [
        ratio("StartTask / raw calls", found.ours, found.raw, 1.12, "raw"),
        Figure(
            name="StartTask / raw calls, both p99",
            value=slow / slow_raw,
            limit=1.4,
            unit="x",
            note=f"{slow:.1f} ms against {slow_raw:.1f} ms raw, {len(found.ours)} starts",
        ),
        Figure(
            name="StopTask after the process's end",
            value=statistics.median(found.stops),
            limit=20,
            unit="ms",
            note=f"worst {max(found.stops):.1f} ms of {len(found.stops)}",
        ),
    ]


async def measure(setting: Setting) -> Measured:
    """Measures StartTask and StopTask of a present image, beside raw calls and `ctr run`."""
    async with launched(setting.driver), setting.containerd() as client:
        found = await in_turns(setting, client, setting.image, setting.plan.rounds)
    plot = Plot(
        title="Start of a present image",
        kind=PlotKind.DISTRIBUTION,
        x="ms",
        y="% of the starts",
        series={
            "raw calls": samples(found.raw),
            "this driver": samples(found.ours),
            "ctr run": samples(found.ctr),
        },
    )
    return Measured(figures=figures(found), plots=[plot])
