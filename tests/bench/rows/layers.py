"""The row `layers`: first and cached starts of an image of many layers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from tests.bench import raw_calls
from tests.bench.figures import Measured, ratio
from tests.bench.rows import starts
from tests.bench.setting import Setting, loaded
from tests.support.plugin.driver import launched
from tests.support.registries import images

_LAYERS = 60
_PART_OF_ROUNDS = 10


async def measure(setting: Setting) -> Measured:
    """Measures first and cached starts of an image of 60 layers beside `ctr image pull`."""
    rounds = max(1, setting.plan.rounds // _PART_OF_ROUNDS)
    raw, ours = [], []
    async with launched(setting.driver), setting.containerd() as client:
        for number in range(rounds + 1):
            pulled, started = (
                images.push(
                    setting.registry, f"layers-{who}-{number}", "1", _layered(f"{who}{number}")
                )
                for who in ("raw", "ours")
            )
            begun = time.perf_counter()
            pull = ("images", "pull", "--plain-http", pulled)
            await asyncio.to_thread(setting.driver.daemon.ctr, *pull)
            spent = time.perf_counter() - begun
            image = await loaded(client, pulled)
            job = setting.driver.task(f"first-{number}")
            spent += await raw_calls.spent(client, image, pulled, job)
            first = await setting.start_ms(started)
            if number:
                raw.append(spent * 1000)
                ours.append(first)
            setting.progress.step(number, rounds, "first starts")
        cached = await starts.in_turns(setting, client, started, setting.plan.rounds)
    name = f"first start of {_LAYERS} layers / ctr pull and raw calls"
    (figure, *_) = starts.figures(cached)
    return Measured(
        figures=[
            ratio(name, ours, raw, 1.5, "by ctr"),
            replace(figure, name=f"StartTask of {_LAYERS} cached layers / raw calls"),
        ]
    )


def _layered(name: str) -> images.Image:
    """Builds an image without shared layers: a pull unpacks every layer."""
    files = [
        images.layer({f"l/{number}": f"{name} {number}".encode()}) for number in range(_LAYERS)
    ]
    return images.build([images.busybox_layer(), *files], {"Cmd": ["/bin/sh"]})
