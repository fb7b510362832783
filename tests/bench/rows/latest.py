"""The row `latest`: the price of asking the registry for an unchanged tag."""

from __future__ import annotations

import statistics

from tests.bench.figures import Figure, Measured
from tests.bench.setting import Setting
from tests.support.plugin.driver import launched
from tests.support.registries import images

_PART_OF_ROUNDS = 4


async def measure(setting: Setting) -> Measured:
    """Measures starts of an unchanged `:latest` beside starts of another tag, in turns."""
    rounds = max(1, setting.plan.rounds // _PART_OF_ROUNDS)
    image = images.build([images.busybox_layer()], {"Cmd": ["/bin/sh"]})
    latest = images.push(setting.registry, "busybox", "latest", image)
    asked: list[float] = []
    present: list[float] = []
    async with launched(setting.driver):
        for number in range(rounds + 1):
            for reference, into in ((setting.image, present), (latest, asked)):
                spent = await setting.start_ms(reference)
                if number:
                    into.append(spent)
            setting.progress.step(number, rounds)
    figure = Figure(
        name="start of an unchanged :latest, more than of a present tag",
        value=statistics.median(asked) - statistics.median(present),
        limit=30,
        unit="ms",
        note=f"{statistics.median(asked):.0f} ms against {statistics.median(present):.0f} ms",
    )
    return Measured(figures=[figure])
