"""Everything that the rows of the bench share: the driver, an image, a registry, and the plan."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from containerd.api.client import Containerd
from containerd.image.oci_image import LoadedImage, load_image
from tests.bench.progress import Progress
from tests.support.plugin.driver import Driver

SLEEPER = 'trap "exit 0" TERM; while :; do sleep 1000 & wait; done'
"""Script of a task that waits without work and ends at SIGTERM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Size of a measurement.

    Args:
        rounds: repetitions of a short step; a row with long steps takes a part.
        tasks: number of tasks that run at the same time.
        seconds: time of each measurement of CPU.
        at_once: numbers of tasks that start at the same moment.
    """

    rounds: int = 100
    tasks: int = 50
    seconds: float = 10
    at_once: tuple[int, ...] = (50, 200)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The place of a measurement: `image` is present in containerd and in `registry`."""

    driver: Driver
    image: str
    registry: str
    plan: Plan
    progress: Progress

    @contextlib.asynccontextmanager
    async def containerd(self) -> AsyncIterator[Containerd]:
        """Connects to the driver's containerd for a `with` block."""
        client = Containerd(self.driver.containerd.address, self.driver.containerd.namespace)
        try:
            yield client
        finally:
            await client.close()

    async def start_ms(self, reference: str) -> float:
        """Returns the milliseconds of StartTask, and removes the task."""
        job = self.driver.task()
        begun = time.perf_counter()
        await self.driver.start(job, reference, SLEEPER)
        spent = (time.perf_counter() - begun) * 1000
        await self.driver.end(job)
        return spent


async def loaded(client: Containerd, reference: str) -> LoadedImage:
    """Returns the configuration of an image in containerd."""
    record = await client.images.get(reference)
    assert record is not None, f"{reference} is not in containerd"
    return await load_image(client.content, record)
