"""Memory and CPU of processes, as the kernel counts both."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def pss_mb(pid: int) -> float:
    """Returns a process's memory in MiB; shared pages count in equal parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(pid: int) -> float:
    """Returns the CPU seconds of a process since its start."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


async def cpu_percent(pids: Iterable[int], seconds: float) -> float:
    """Measures the CPU of processes together for some seconds, in % of one core."""
    pids = list(pids)
    before = sum(cpu_s(pid) for pid in pids)
    begun = time.perf_counter()
    await asyncio.sleep(seconds)
    return (sum(cpu_s(pid) for pid in pids) - before) * 100 / (time.perf_counter() - begun)
