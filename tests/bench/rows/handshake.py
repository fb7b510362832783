"""The row `handshake`: from the plugin's process to its handshake."""

from __future__ import annotations

import statistics
import time

from tests.bench.figures import Figure, Measured
from tests.bench.setting import Setting


async def measure(setting: Setting) -> Measured:
    """Measures the time from plugin process to handshake, with compiled files."""
    session, rounds = setting.driver.session, setting.plan.rounds
    spent = []
    for number in range(rounds + 2):
        begun = time.perf_counter()
        await session._handshake()
        if number > 1:  # the first processes read the files from the disk
            spent.append((time.perf_counter() - begun) * 1000)
        session.kill_plugin()
        setting.progress.step(number, rounds + 1)
    figure = Figure(
        name="plugin process to handshake",
        value=statistics.median(spent),
        limit=150,
        unit="ms",
        note=f"best {min(spent):.0f}, worst {max(spent):.0f}",
    )
    return Measured(figures=[figure])
