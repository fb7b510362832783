"""Threads, calls and files whose number does not depend on the number of tasks."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from containerd.api import methods
from plugin.host.agent.session import Handle
from tests.support.fakes.containerd.crowd import Crowd
from tests.support.fakes.stage import IMAGE, Stage
from tests.support.plugin.driver import Job
from tests.support.waiting import until

NODE = "node-1"
FEW, MANY = 12, 200
SOON = {"period": "1s", "creation_grace": "1s"}
LISTS = {methods.CONTAINER_LIST.path, methods.LEASE_LIST.path, methods.TASK_LIST.path}
OF_A_START = {
    *(methods.IMAGE_GET.path, methods.SNAPSHOT_STAT.path, methods.SNAPSHOT_PREPARE.path),
    *(methods.CONTAINER_CREATE.path, methods.TASK_CREATE.path, methods.TASK_START.path),
    methods.TASK_GET.path,
}
DEADLINE_S = 60.0


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Yields a plugin whose tasks share one shim. The parameter is the option dry_run."""
    sweeps = {**SOON, "dry_run": getattr(request, "param", False)}
    with Stage(tmp_path, {"dangling_containers": sweeps}) as made:
        crowd = Crowd(made.containerd.base / "crowd.sock")
        made.containerd.tasks.make_shim = crowd.member
        yield made
    crowd.close()


async def start(stage: Stage, node: str = NODE) -> tuple[Job, Handle]:
    job = stage.driver.task(node_id=node)
    config = {"image": IMAGE, "command": "/bin/sh", "args": ["-c", "true"]}
    return job, await stage.session.start(job.config, config)


async def released(stage: Stage, *jobs: Job) -> None:
    """Waits until the starts have released the pins of their mount sources."""
    pins = [stage.driver.state_dir / "mounts" / job.container for job in jobs]
    await until(lambda: not any(pin.exists() for pin in pins), DEADLINE_S, "pins stay")


async def fill(stage: Stage, count: int, node: str = NODE) -> list[tuple[Job, Handle]]:
    """Starts tasks, four at a time."""

    async def some() -> list[tuple[Job, Handle]]:
        return [await start(stage, node) for _ in range(count // 4)]

    started = list(itertools.chain(*await asyncio.gather(*(some() for _ in range(4)))))
    await released(stage, *(job for job, _ in started))
    return started


def calls(stage: Stage, since: int) -> Counter[str]:
    return Counter(call.path for call in stage.containerd.calls[since:])


def sweep_count(stage: Stage, since: int) -> int:
    return calls(stage, since)[methods.CONTAINER_LIST.path]


def entries(stage: Stage, folder: str) -> int:
    return sum(1 for _ in Path(f"/proc/{stage.session.pid}/{folder}").iterdir())


async def calls_of_a_start(stage: Stage) -> Counter[str]:
    """Counts the calls for one start, without the sweeps' lists."""
    since = len(stage.containerd.calls)
    job, _ = await start(stage)
    await released(stage, job)
    found = calls(stage, since)
    return Counter({path: found[path] for path in OF_A_START})


async def test_threads_calls_and_files_of_a_start_are_those_of_an_empty_node(stage: Stage) -> None:
    await fill(stage, FEW)
    threads, files = entries(stage, "task"), entries(stage, "fd")
    alone = await calls_of_a_start(stage)
    await fill(stage, MANY)
    assert await calls_of_a_start(stage) == alone
    assert entries(stage, "task") <= threads + 8  # gRPC's own threads come and go
    # One connection to each worker, and a few files that the moment needs.
    assert entries(stage, "fd") <= files + MANY + 2 + 16


async def test_a_recovery_asks_containerd_nothing(stage: Stage) -> None:
    started = await fill(stage, 40)
    stage.session.kill_plugin()
    await stage.session.launch()
    await stage.driver.healthy()
    since = len(stage.containerd.calls)
    for _, handle in started:
        await stage.session.recover(handle)
    known = {methods.VERSION.path, methods.PLUGINS.path, methods.SNAPSHOT_LIST.path, *LISTS}
    assert set(calls(stage, since)) <= known
    assert calls(stage, since)[methods.TASK_LIST.path] <= sweep_count(stage, since) + 1


async def test_a_sweep_makes_the_same_few_calls_for_own_tasks(stage: Stage) -> None:
    await fill(stage, 40)
    since = len(stage.containerd.calls)
    await until(lambda: sweep_count(stage, since) >= 3, DEADLINE_S, "no sweeps")
    found = calls(stage, since)
    assert found[methods.TASK_GET.path] == 0
    assert found[methods.TASK_LIST.path] == 0
    assert found[methods.CONTAINER_GET.path] == 0


async def test_a_sweep_probes_no_task_of_another_agent(stage: Stage) -> None:
    await fill(stage, 40, "another-node")
    stage.session.kill_plugin()
    await stage.session.launch()
    since = len(stage.containerd.calls)
    await until(lambda: sweep_count(stage, since) >= 3, DEADLINE_S, "no sweeps")
    found = calls(stage, since)
    assert found[methods.TASK_GET.path] == 0
    assert found[methods.TASK_LIST.path] == 0


@pytest.mark.parametrize("stage", [True], indirect=True, ids=["dry_run"])
async def test_a_sweep_lists_the_tasks_of_many_orphans_at_once(stage: Stage) -> None:
    started = await fill(stage, 40)
    stage.session.kill_plugin()
    await stage.session.launch()
    await stage.session.recover(started[0][1])
    since = len(stage.containerd.calls)
    await until(lambda: sweep_count(stage, since) >= 4, DEADLINE_S, "no sweeps")
    found = calls(stage, since)
    assert found[methods.TASK_GET.path] == 0
    assert 2 <= found[methods.TASK_LIST.path] <= found[methods.CONTAINER_LIST.path]


async def test_the_removal_of_each_orphan_lists_nothing_again(stage: Stage) -> None:
    started = await fill(stage, 40)
    stage.session.kill_plugin()
    await stage.session.launch()
    since = len(stage.containerd.calls)
    (job, handle), *_ = started
    await stage.session.recover(handle)  # from now on the plugin decides about the node's tasks
    metadata = stage.containerd.metadata
    await until(lambda: set(metadata.containers) == {job.container}, DEADLINE_S, "orphans are left")
    deleted = calls(stage, since)[methods.CONTAINER_DELETE.path]
    assert deleted >= len(started) - 1
    # All orphans have the same age, so few sweeps remove all.
    assert sweep_count(stage, since) < 20
    snapshots = calls(stage, since)[methods.SNAPSHOT_LIST.path]
    assert snapshots <= 2 * sweep_count(stage, since)
