"""`./dev bench`: the driver's costs, as ratios and shares within one run.

Absolute times differ between machines and minutes. Every figure stands beside a limit: a ratio to
raw containerd calls of the same run, or a share of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from actors.model import identifiers
from containerd.api.client import Containerd
from containerd.api.records import ContainerRecord, Streams
from containerd.image.oci_image import LoadedImage, load_image
from containerd.spec import mounts
from containerd.spec.build import SpecInputs, build_spec
from containerd.spec.resources import Limits
from containerd.spec.users import ResolvedUser
from tests.support import images
from tests.support.containerd_daemon import ContainerdDaemon
from tests.support.driver import Driver, Job, launched
from tests.support.launcher import launcher_pid, worker_pids
from tests.support.registry import Registry

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_LAYERS = 60
_SLEEPER = 'trap "exit 0" TERM; while :; do sleep 1000 & wait; done'


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure beside the limit, both in `unit`."""

    name: str
    value: float
    limit: float
    unit: str
    note: str = ""

    @property
    def holds(self) -> bool:
        """Returns whether the figure is within the limit."""
        return self.value <= self.limit


async def starts(driver: Driver, image: str, rounds: int) -> list[Figure]:
    """Measures StartTask beside prepare, container, task create and task start, in turns."""
    raw, ours, stops = [], [], []
    client = Containerd(driver.containerd.address, driver.containerd.namespace)
    record = await client.images.get(image)
    assert record is not None
    loaded = await load_image(client.content, record)
    for number in range(rounds + 1):
        spent = await _raw_start(client, loaded, image, driver.task(f"raw-{number}"))
        job = driver.task()
        begun = time.perf_counter()
        await driver.start(job, image, _SLEEPER)
        started = time.perf_counter() - begun
        await driver.session.stop(job.id, timeout_s=10)
        returned_ns = time.time_ns()
        ended_ns = (await driver.session.inspect(job.id)).completed_at_ns
        await driver.end(job)
        if number:  # the first round warms everything up
            raw.append(spent * 1000)
            ours.append(started * 1000)
            stops.append((returned_ns - ended_ns) / 1e6)
    await client.close()
    ratio = statistics.median(ours) / statistics.median(raw)
    note = f"{statistics.median(ours):.1f} ms against {statistics.median(raw):.1f} ms raw"
    return [
        Figure(name="StartTask / raw calls", value=ratio, limit=1.25, unit="x", note=note),
        Figure(
            name="StopTask after the process's end",
            value=statistics.median(stops),
            limit=20,
            unit="ms",
            note=f"worst {max(stops):.1f} ms of {rounds}",
        ),
    ]


async def layers(driver: Driver, host: str, rounds: int) -> list[Figure]:
    """Measures first and cached starts of an image of many layers beside `ctr image pull`."""
    daemon = driver.containerd
    assert isinstance(daemon, ContainerdDaemon)
    client = Containerd(daemon.address, daemon.namespace)
    raw, ours = [], []
    for number in range(rounds + 1):
        pulled, started = (
            images.push(host, f"layers-{who}-{number}", "1", _layered(f"{who}{number}"))
            for who in ("raw", "ours")
        )
        begun = time.perf_counter()
        pull = ("images", "pull", "--plain-http", pulled)
        await asyncio.to_thread(daemon.ctr, *pull)
        spent = time.perf_counter() - begun
        record = await client.images.get(pulled)
        assert record is not None
        loaded = await load_image(client.content, record)
        spent += await _raw_start(client, loaded, pulled, driver.task(f"first-{number}"))
        job = driver.task()
        begun = time.perf_counter()
        await driver.start(job, started, _SLEEPER)
        first = time.perf_counter() - begun
        await driver.end(job)
        if number:
            raw.append(spent * 1000)
            ours.append(first * 1000)
    await client.close()
    note = f"{statistics.median(ours):.0f} ms against {statistics.median(raw):.0f} ms by ctr"
    ratio = statistics.median(ours) / statistics.median(raw)
    (cached, _) = await starts(driver, started, rounds * 10)
    return [
        Figure(
            name=f"first start of {_LAYERS} layers / ctr pull and raw calls",
            value=ratio,
            limit=1.5,
            unit="x",
            note=note,
        ),
        replace(cached, name=f"StartTask of {_LAYERS} cached layers / raw calls"),
    ]


def _layered(name: str) -> images.Image:
    """Builds an image without shared layers: a pull unpacks every layer."""
    files = [
        images.layer({f"l/{number}": f"{name} {number}".encode()}) for number in range(_LAYERS)
    ]
    return images.build([images.busybox_layer(), *files], {"Cmd": ["/bin/sh"]})


async def _raw_start(client: Containerd, image: LoadedImage, name: str, job: Job) -> float:
    """Returns the seconds of the four calls that any driver needs for the same container.

    The logs go into the allocation's FIFOs, and the allocation's directories are mounted.
    """
    container = job.container
    job.read_logs()
    shared, own = job.alloc.path / "alloc", job.alloc.path / job.config.name
    document = build_spec(
        SpecInputs(
            image_config=image.config,
            command="/bin/sh",
            args=("-c", _SLEEPER),
            user=ResolvedUser(uid=0, gid=0),
            hostname="raw",
            cgroup_path=f"/{client.namespace}/{container}",
            limits=Limits(memory_bytes=64 << 20, cpu_shares=100),
            mounts=(
                mounts.bind(str(shared), "/alloc"),
                mounts.bind(str(shared / "logs"), "/alloc/logs", readonly=True),
                mounts.bind(str(own / "local"), "/local"),
                mounts.bind(str(own / "secrets"), "/secrets"),
                mounts.bind("/etc/resolv.conf", "/etc/resolv.conf"),
            ),
        )
    )
    record = ContainerRecord(
        id=container,
        labels={},
        image=name,
        runtime="io.containerd.runc.v2",
        spec_json=json.dumps(document).encode(),
        snapshotter=client.default_snapshotter,
        snapshot_key=identifiers.snapshot_key(container),
    )
    await client.leases.create(container, expire_s=600, labels={})
    begun = time.perf_counter()
    rootfs = await client.snapshots.prepare(
        record.snapshotter, record.snapshot_key, image.chain_id, {}, container
    )
    await client.containers.create(record, container)
    await client.tasks.create(
        container,
        rootfs,
        Streams(stdout=job.config.stdout_path, stderr=job.config.stderr_path),
    )
    await client.tasks.start(container)
    spent = time.perf_counter() - begun
    await client.tasks.kill(container, 9, everyone=True)
    await client.tasks.wait(container)
    await client.tasks.delete(container)
    await client.containers.delete(container)
    await client.snapshots.remove(record.snapshotter, record.snapshot_key)
    await client.leases.delete(container)
    await job.logs_end()
    return spent


async def crowd(driver: Driver, image: str, count: int, seconds: float) -> list[Figure]:
    """Measures memory and CPU of `count` tasks, first alone, then with stats of all tasks."""
    jobs = [driver.task(f"t{number}") for number in range(count)]
    for batch in range(0, count, 5):
        await asyncio.gather(
            *(driver.start(job, image, _SLEEPER) for job in jobs[batch : batch + 5])
        )
    await asyncio.sleep(2)
    workers = worker_pids(driver.state_dir)
    launcher = launcher_pid(driver.state_dir)
    plugin = driver.session.pid
    everybody = [*workers, plugin, *([launcher] if launcher else [])]
    each = [_pss_mb(pid) for pid in workers]
    plugin_mb = _pss_mb(plugin)
    idle = await _cpu_percent(workers, seconds)
    idle_all = await _cpu_percent(everybody, seconds)
    async with _watching(driver, jobs):
        await asyncio.sleep(2)
        watched = await _cpu_percent(everybody, seconds)
    for job in jobs:
        await driver.session.stop(job.id, timeout_s=10)
        await driver.end(job)
    label = f"{count} tasks"
    return [
        Figure(name=f"{label}: each worker", value=max(each), limit=1.3, unit="MB PSS",
               note=f"median {statistics.median(each):.2f}"),
        Figure(name=f"{label}: plugin", value=plugin_mb, limit=45, unit="MB PSS"),
        Figure(name=f"{label}: workers idle", value=idle, limit=0, unit="% of a core",
               note=f"plugin and launcher too: {idle_all:.2f}"),
        Figure(name=f"{label}: stats every second", value=watched, limit=2.5,
               unit="% of a core", note="plugin, launcher and workers"),
    ]  # fmt: skip


@contextlib.asynccontextmanager
async def _watching(driver: Driver, jobs: list[Job]) -> AsyncIterator[None]:
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


async def handshakes(driver: Driver, rounds: int) -> list[Figure]:
    """Measures the time from plugin process to handshake, with compiled files."""
    spent = []
    for number in range(rounds + 2):
        begun = time.perf_counter()
        await driver.session._handshake()
        if number > 1:
            spent.append((time.perf_counter() - begun) * 1000)
        driver.session.kill_plugin()
    median = statistics.median(spent)
    return [
        Figure(name="plugin process to handshake", value=median, limit=150, unit="ms",
               note=f"best {min(spent):.0f}, worst {max(spent):.0f}"),
    ]  # fmt: skip


def _pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def _cpu_percent(pids: list[int], seconds: float) -> float:
    before = sum(_cpu_s(pid) for pid in pids)
    begun = time.perf_counter()
    await asyncio.sleep(seconds)
    return (sum(_cpu_s(pid) for pid in pids) - before) * 100 / (time.perf_counter() - begun)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


async def measure(
    driver: Driver, image: str, host: str, arguments: argparse.Namespace
) -> list[Figure]:
    """Measures all figures, in the order with the least mutual disturbance."""
    figures: list[Figure] = []
    figures += await handshakes(driver, arguments.rounds)
    async with launched(driver):
        steps: list[Callable[[], Awaitable[list[Figure]]]] = [
            lambda: starts(driver, image, arguments.rounds),
            lambda: layers(driver, host, max(1, arguments.rounds // 10)),
            lambda: crowd(driver, image, arguments.tasks, arguments.seconds),
        ]
        for step in steps:
            figures += await step()
    return figures


def show(figures: list[Figure]) -> None:
    """Prints a table with a bar for the used part of each limit."""
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        used = figure.value / figure.limit if figure.limit else float(figure.value > 0)
        bar = ("█" * min(20, round(used * 10))).ljust(10, "·")
        mark = "ok " if figure.holds else "OVER"
        text = f"{figure.value:8.2f} of {figure.limit:6.2f} {figure.unit:12} {bar} {mark}"
        sys.stdout.write(f"{figure.name:{width}}  {text}  {figure.note}\n")


def main() -> int:
    """Measures and prints; the exit status is 1 if a figure exceeds a limit."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with (
        ContainerdDaemon() as containerd,
        Registry() as registry,
        tempfile.TemporaryDirectory() as directory,
    ):
        image = images.build([images.busybox_layer()], {"Cmd": ["/bin/sh"]})
        reference = images.push(registry.host, "busybox", "1", image)
        driver = Driver(containerd, Path(directory))
        try:
            asyncio.run(_pull_once(driver, reference))
            figures = asyncio.run(measure(driver, reference, registry.host, arguments))
        finally:
            driver.close()
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    else:
        show(figures)
    return 0 if all(figure.holds for figure in figures) else 1


async def _pull_once(driver: Driver, image: str) -> None:
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, image, "true")
        await session.wait(job.id)
        await driver.end(job)


if __name__ == "__main__":
    sys.exit(main())
