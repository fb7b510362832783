"""The kernel kills a worker, the launcher, the plugin for want of memory: tasks never notice."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from actors.model.nomad import TaskState
from plugin.host.agent.session import Handle
from proto.errors import DriverError
from tests.support.fakes.stage import IMAGE, Stage
from tests.support.kernel.scarce import little_memory
from tests.support.plugin.driver import Job
from tests.support.plugin.victims import runs
from tests.support.waiting import until
from tests.support.workers.launcher import launcher_pid, worker_pid, worker_pids
from tests.support.workers.peers import Peer
from workers import protocol

SCRIPT = "echo first; trap 'echo last; exit 5' TERM; while :; do sleep 0.1; done"
KIB = 1 << 10
# Less than one page: the next page of a process exceeds the limit.
NOTHING = 1


async def running(stage: Stage) -> tuple[Job, Handle, int]:
    """Starts a task and returns the task, the handle and the first process."""
    job = stage.driver.task("runs")
    job.read_logs()
    config = {"image": IMAGE, "command": "/bin/sh", "args": ["-c", SCRIPT]}
    handle = await stage.session.start(job.config, config)
    await until(lambda: job.out, 10, "no output")
    return job, handle, stage.containerd.tasks.tasks[job.container].shim.pid


async def untouched(stage: Stage, job: Job, pid: int) -> None:
    """Checks that the task is unchanged, and that queries, stop and log reading still work."""
    assert (await stage.session.inspect(job.id)).state is TaskState.RUNNING
    assert stage.containerd.tasks.tasks[job.container].shim.pid == pid
    stats = stage.session.stats(job.id, 0.1)
    await anext(stats)
    await stats.aclose()
    assert (await stage.session.exec(job.id, ["/bin/echo", "here"])).stdout == b"here\n"
    await stage.session.stop(job.id)
    assert (await stage.session.wait(job.id)).exit_code == 5
    await stage.session.destroy(job.id)
    await job.logs_end()
    assert bytes(job.out) == b"first\nlast\n"


def watches(place: Path) -> bool:
    """Tells whether a worker exists whose plugin has sent the watch request."""
    if worker_pid(place) is None:
        return False
    with Peer(place / protocol.CONTROL_SOCKET) as peer:
        return peer.ask("hello")["watching"] is True


async def end_worker(place: Path) -> None:
    """Takes all memory from a worker that the plugin knows, and connects to end the worker."""
    await until(lambda: watches(place), 10, "no worker")
    worker = worker_pid(place)
    assert worker is not None
    with little_memory(worker, NOTHING) as kills:
        await until(lambda: worker_pid(place) != worker, 10, "the worker takes connections")
        await until(lambda: not runs(worker), 10, "the worker lives on")
        assert kills() == 1


async def test_a_worker_that_the_kernel_kills_is_replaced_and_not_at_once_when_that_repeats(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        job, _, pid = await running(stage)
        place = stage.driver.state_dir / "tasks" / job.container
        for _ in range(2):
            await end_worker(place)
        await until(lambda: watches(place), 10, "no worker came back")
        lost = [one for one in caplog.messages if "worker lost" in one]
        assert ["pause_s=0.0" in one for one in lost] == [True, False]
        await untouched(stage, job, pid)


@pytest.mark.parametrize("limit", [300 * KIB, 600 * KIB])
async def test_a_launcher_that_is_short_of_memory_costs_a_start_at_most_and_is_replaced(
    stage: Stage, limit: int
) -> None:
    job, _, pid = await running(stage)
    launcher = launcher_pid(stage.driver.state_dir)
    assert launcher is not None
    others: list[Job] = []
    with little_memory(launcher, limit) as kills:
        while not kills():
            assert len(others) < 20, "so many workers cannot fit"
            others.append(stage.driver.task(f"n{len(others)}"))
            try:
                await stage.start(others[-1])
            except DriverError as error:
                assert error.recoverable, str(error)  # noqa: PT017 - not every time it is met
                assert "MemoryMax" in str(error) or "limit of its unit" in str(error)  # noqa: PT017
        others.append(stage.driver.task("late"))
        await stage.start(others[-1])
        assert launcher_pid(stage.driver.state_dir) != launcher
    for other in others:
        await stage.session.destroy(other.id)
    assert len(worker_pids(stage.driver.state_dir)) == 1
    await untouched(stage, job, pid)


async def test_a_plugin_that_is_killed_with_its_puller_is_started_again_and_recovers(
    stage: Stage,
) -> None:
    job, handle, pid = await running(stage)
    workers = worker_pids(stage.driver.state_dir)
    with little_memory(stage.session.pid, NOTHING) as kills:
        with pytest.raises(DriverError):
            await stage.driver.start(stage.driver.task("new"), "127.0.0.1:9/none:1", SCRIPT)
        await until(lambda: not stage.session.alive, 10, "the plugin lives on")
        assert kills()
    await stage.session.launch()
    await stage.session.recover(handle)
    assert worker_pids(stage.driver.state_dir) == workers
    await untouched(stage, job, pid)
