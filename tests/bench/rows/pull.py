"""The row `pull`: 150 MiB from a registry on loopback, ours and by `ctr image pull`."""

from __future__ import annotations

import asyncio
import os
import statistics
import time

from tests.bench.figures import Measured, Plot, PlotKind, ratio, samples
from tests.bench.setting import Setting
from tests.support.plugin.driver import launched
from tests.support.registries import images

_MIB = 1024 * 1024
_LAYERS = 5
# Of each layer: half of a usual layer's bytes do not compress. The whole is 150 MiB with busybox.
_RANDOM_BYTES = int(29.6 * _MIB)
_TEXT = b"A line of text in a file of a layer.\n"
_PART_OF_ROUNDS = 20


async def measure(setting: Setting) -> Measured:
    """Measures a pull of 150 MiB in five layers beside `ctr image pull`, in turns."""
    rounds = max(2, setting.plan.rounds // _PART_OF_ROUNDS)
    image = await asyncio.to_thread(_large)
    size = sum(map(len, image.blobs.values())) / _MIB
    reference = images.push(setting.registry, "large", "1", image)
    ctr, starts, cached = [], [], []
    async with launched(setting.driver):
        for number in range(rounds + 1):
            by_ctr = await _ctr_pull_ms(setting, reference)
            await _remove(setting, reference)
            first, second = [await setting.start_ms(reference) for _ in range(2)]
            await _remove(setting, reference)
            if number:
                ctr.append(by_ctr)
                starts.append(first)
                cached.append(second)
            setting.progress.step(number, rounds, f"pulls of {size:.0f} MiB")
    ours = [spent - statistics.median(cached) for spent in starts]
    name = f"pull of {size:.0f} MiB / ctr image pull"
    return Measured(figures=[ratio(name, ours, ctr, 1.1, "by ctr")], plots=[_plot(size, ours, ctr)])


def _plot(size: float, ours: list[float], ctr: list[float]) -> Plot:
    return Plot(
        title=f"Pull of {size:.0f} MiB from loopback",
        kind=PlotKind.BARS,
        x="",
        y="ms",
        series={"ctr image pull": samples(ctr), "this driver": samples(ours)},
    )


def _large() -> images.Image:
    text = _TEXT * (_RANDOM_BYTES // len(_TEXT))
    layers = [
        images.layer({f"data/{number}": os.urandom(_RANDOM_BYTES), f"text/{number}": text})
        for number in range(_LAYERS)
    ]
    return images.build([images.busybox_layer(), *layers], {"Cmd": ["/bin/sh"]})


async def _ctr_pull_ms(setting: Setting, reference: str) -> float:
    begun = time.perf_counter()
    pull = ("images", "pull", "--plain-http", reference)
    await asyncio.to_thread(setting.driver.daemon.ctr, *pull)
    return (time.perf_counter() - begun) * 1000


async def _remove(setting: Setting, reference: str) -> None:
    """Removes the image; containerd collects layers and snapshots before the answer."""
    remove = ("images", "remove", "--sync", reference)
    await asyncio.to_thread(setting.driver.daemon.ctr, *remove)
