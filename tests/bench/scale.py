"""Costs against the number of tasks: `python -m tests.bench.scale {real|fake} COUNT ...`.

`real` has containerd and busybox. `fake` has real workers, a fake containerd, and one shim for all
tasks, so thousands of tasks fit into a small machine. Each count is a row: the tasks of the
earlier rows still run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from plugin.host.agent.session import Handle
from tests.bench.processes import cpu_percent, cpu_s, pss_mb
from tests.bench.rows.crowd import watching
from tests.bench.setting import SLEEPER
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.fakes.containerd import FakeContainerd
from tests.support.fakes.containerd.crowd import Crowd
from tests.support.fakes.stage import IMAGE
from tests.support.plugin import loop_probe
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.registries import images
from tests.support.registries.registry import Registry
from tests.support.workers.launcher import worker_pids

_AT_ONCE = 4
_SAMPLE = 20
_PERIOD_S = 5.0
_NODE = "bench-node"
_SWEEP = re.compile(r"orphan sweep completed .*elapsed_ms=(\d+)")


@dataclass(slots=True)
class Row:
    """Figures with `tasks` tasks. Pauses are the longest of the event loop, in milliseconds."""

    tasks: int
    start_ms: float = 0.0
    start_cpu_ms: float = 0.0
    plugin_mb: float = 0.0
    worker_mb: float = 0.0
    threads: int = 0
    idle_percent: float = 0.0
    stats_percent: float = 0.0
    stats_plugin_percent: float = 0.0
    stats_pause_ms: float = 0.0
    starts_pause_ms: float = 0.0
    starts_gc_ms: float = 0.0
    sweep_ms: float = 0.0
    sweep_pause_ms: float = 0.0
    fingerprint_ms: float = 0.0
    recover_s: float = 0.0
    recover_at_once_s: float = 0.0
    foreign_sweep_ms: float = 0.0
    foreign_pause_ms: float = 0.0
    recovered_mb: float = 0.0
    recover_pause_ms: float = 0.0
    recover_gc_ms: float = 0.0


class _Sweeps(logging.Handler):
    """The durations of the sweeps that the plugin has logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lasted_ms: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        found = _SWEEP.search(record.getMessage())
        if found:
            self.lasted_ms.append(int(found[1]))


class Bench:
    """A plugin with a probe, and the tasks that run."""

    def __init__(self, driver: Driver, image: str) -> None:
        self.driver = driver
        self.image = image
        self.handles: dict[str, tuple[Job, Handle]] = {}
        self.sweeps = _Sweeps()
        log = logging.getLogger("plugin.host.plugin")
        log.addHandler(self.sweeps)
        log.setLevel(logging.DEBUG)
        log.propagate = False
        program = Path(driver.session._program[-1])
        self._figures = loop_probe.probed(program, sys.executable)

    async def probe(self) -> dict[str, float]:
        """Returns the figures of the plugin since the last call."""
        return await loop_probe.figures(self.driver.session.pid, self._figures)

    async def start(self) -> float:
        """Starts a task; returns the milliseconds."""
        job = self.driver.task(node_id=_NODE)
        begun = time.perf_counter()
        config = {"image": self.image, "command": "/bin/sh", "args": ["-c", SLEEPER]}
        handle = await self.driver.session.start(job.config, config)
        self.handles[job.id] = (job, handle)
        return (time.perf_counter() - begun) * 1000

    async def fill(self, count: int) -> None:
        """Starts tasks until `count` run."""

        async def some() -> None:
            while len(self.handles) + len(pending) < count:
                pending.append(1)
                await self.start()
                pending.pop()

        pending: list[int] = []
        await asyncio.gather(*(some() for _ in range(_AT_ONCE)))

    async def row(self, count: int, seconds: float) -> Row:
        """Starts tasks up to a count, and measures."""
        row = Row(count)
        await self.fill(count - _SAMPLE)
        await self._swept()  # the next sweep begins after the starts
        await self.probe()
        pid = self.driver.session.pid
        cpu = cpu_s(pid)
        row.start_ms = statistics.median([await self.start() for _ in range(_SAMPLE)])
        row.start_cpu_ms = (cpu_s(pid) - cpu) * 1000 / _SAMPLE
        told = await self.probe()
        row.starts_pause_ms = told["pause_ms"]
        await asyncio.sleep(1)
        workers = worker_pids(self.driver.state_dir)
        await self._swept()
        row.worker_mb = statistics.mean(map(pss_mb, workers[:: max(1, len(workers) // _SAMPLE)]))
        row.plugin_mb = pss_mb(pid)
        row.threads = int(told["threads"])
        row.idle_percent = await cpu_percent([pid], seconds)
        row.starts_gc_ms = told["gc_ms"]
        async with watching(self.driver, [job for job, _ in self.handles.values()]):
            await asyncio.sleep(2)
            await self.probe()
            plugin, begun = cpu_s(pid), time.perf_counter()
            row.stats_percent = await cpu_percent([pid, *workers], seconds)
            row.stats_plugin_percent = (cpu_s(pid) - plugin) * 100 / (time.perf_counter() - begun)
            row.stats_pause_ms = (await self.probe())["pause_ms"]
        await asyncio.sleep(1)
        row.sweep_ms, row.sweep_pause_ms = await self.sweep()
        begun = time.perf_counter()
        await self.driver.session.fingerprint()
        row.fingerprint_ms = (time.perf_counter() - begun) * 1000
        return row

    async def sweep(self) -> tuple[float, float]:
        """Waits for a whole sweep; returns its duration and the longest pause meanwhile."""
        await self._swept()
        await self.probe()
        lasted = await self._swept()
        return lasted, (await self.probe())["pause_ms"]

    async def _swept(self) -> float:
        seen = len(self.sweeps.lasted_ms)
        deadline = time.monotonic() + 120
        while len(self.sweeps.lasted_ms) == seen and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        return self.sweeps.lasted_ms[-1] if len(self.sweeps.lasted_ms) > seen else -1.0

    async def restart(self, row: Row) -> None:
        """Kills the plugin; measures the sweep of a new plugin and the recovery of all tasks."""
        session = self.driver.session
        session.kill_plugin()
        await session.launch()
        row.foreign_sweep_ms, row.foreign_pause_ms = await self.sweep()
        row.recover_s = await self._recover(1)
        row.recover_at_once_s = await self._recover(16)
        told = await self.probe()
        row.recovered_mb = pss_mb(session.pid)
        row.recover_pause_ms, row.recover_gc_ms = told["pause_ms"], told["gc_ms"]

    async def _recover(self, at_once: int) -> float:
        """Recovers all tasks with a new plugin; returns the seconds."""
        session = self.driver.session
        session.kill_plugin()
        await session.launch()
        await session.fingerprint()
        waiting = [handle for _, handle in self.handles.values()]
        await session.recover(waiting.pop())  # the first recovery loads the code
        await self.probe()

        async def some() -> None:
            while waiting:
                await session.recover(waiting.pop())

        begun = time.perf_counter()
        await asyncio.gather(*(some() for _ in range(at_once)))
        return time.perf_counter() - begun

    async def end(self) -> None:
        """Destroys all tasks."""
        jobs = [job for job, _ in self.handles.values()]
        self.handles.clear()

        async def some() -> None:
            while jobs:
                await self.driver.session.destroy(jobs.pop().id)

        await asyncio.gather(*(some() for _ in range(_AT_ONCE)))


@contextlib.contextmanager
def setting(kind: str, directory: Path) -> Iterator[Bench]:
    """Yields a bench on a real or a fake containerd."""
    sweeps = {"period": f"{_PERIOD_S}s", "creation_grace": f"{_PERIOD_S}s", "dry_run": True}
    config = {"gc": {"image": False, "dangling_containers": sweeps}}
    with contextlib.ExitStack() as stack:
        containerd: ContainerdDaemon | FakeContainerd
        if kind == "real":
            containerd = stack.enter_context(ContainerdDaemon())
            registry = stack.enter_context(Registry())
            image = images.build([images.busybox_layer()], {"Cmd": ["/bin/sh"]})
            reference = images.push(registry.host, "busybox", "1", image)
        else:
            containerd = stack.enter_context(FakeContainerd())
            containerd.add_image(IMAGE)
            crowd = Crowd(containerd.base / "crowd.sock")
            stack.callback(crowd.close)
            containerd.tasks.make_shim = crowd.member
            reference = IMAGE
        driver = Driver(containerd, directory, config)
        stack.callback(driver.close)
        yield Bench(driver, reference)


async def measure(bench: Bench, counts: list[int], seconds: float) -> list[Row]:
    """Measures a row for each count; the last row has the recovery too."""
    rows: list[Row] = []
    async with launched(bench.driver):
        for count in counts:
            rows.append(await bench.row(count, seconds))
            sys.stderr.write(f"{json.dumps(asdict(rows[-1]))}\n")
        await bench.restart(rows[-1])
        await bench.end()
    return rows


def show(rows: list[Row]) -> None:
    """Prints a line for each figure and a column for each row."""
    for name in asdict(rows[0]):
        values = (getattr(row, name) for row in rows)
        sys.stdout.write(f"{name:22}" + "".join(f"{value:>12.2f}" for value in values) + "\n")


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["real", "fake"])
    parser.add_argument("counts", type=int, nargs="+")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        setting(arguments.kind, Path(directory)) as bench,
    ):
        rows = asyncio.run(measure(bench, arguments.counts, arguments.seconds))
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    else:
        show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
