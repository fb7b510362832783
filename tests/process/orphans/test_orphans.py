"""The plugin's own sweeps, five a second: real plugins, workers and deaths, a fake containerd."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.model import identifiers
from actors.model.nomad import TaskState
from actors.model.ownership import (
    LABEL_ALLOC_ID,
    LABEL_MAKER,
    LABEL_OWNER,
    LABEL_STATE_DIR,
    LABEL_TASK_ID,
    LABEL_TASK_NAME,
    RUN,
)
from actors.orphans.peers import Presence
from containerd.api import methods
from containerd.api.client import Containerd
from proto.containerd import snapshots_pb2
from proto.errors import DriverError
from tests.support.fakes.stage import IMAGE, SLEEPER, STEPS, Stage
from tests.support.plugin.agent_session import AgentSession
from tests.support.plugin.driver import Job
from tests.support.waiting import slowed, until
from tests.support.workers.launcher import worker_pid
from tests.support.workers.open_fifos import holders
from tests.support.workers.peers import LogReader, has_ended

NODE = "node-1"
SOON = {"dangling_containers": {"period": "200ms", "creation_grace": "500ms"}}
DEADLINE_S = 30.0
# An orphan is removed in the fourth sweep, 0.6 s after the first sweep that found the orphan.
SWEEPS = 6


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("orphans"), SOON) as stage:
        yield stage


def directory(stage: Stage, job: Job) -> Path:
    return stage.driver.state_dir / "tasks" / job.container


def traces(stage: Stage, job: Job) -> list[str]:
    """Returns everything that exists of a task."""
    left = [text for text in stage.containerd.leftovers() if job.config.alloc_id in text]
    return left + [str(path) for path in (directory(stage, job),) if path.exists()]


async def gone(stage: Stage, job: Job) -> None:
    await until(lambda: not traces(stage, job), DEADLINE_S, lambda: f"left: {traces(stage, job)}")


async def sweeps(stage: Stage) -> None:
    """Waits until the plugin has looked several times from now on."""
    start = len(stage.containerd.calls)

    def looks() -> int:
        paths = [call.path for call in stage.containerd.calls[start:]]
        return paths.count(methods.LEASE_LIST.path)

    await until(lambda: looks() >= SWEEPS, DEADLINE_S, "the plugin does not sweep")


async def known(stage: Stage, job: Job) -> None:
    """Waits until the plugin has a task's actor."""
    async with asyncio.timeout(slowed(DEADLINE_S)):
        while True:
            with contextlib.suppress(DriverError):
                await stage.session.inspect(job.id)
                return
            await asyncio.sleep(0.01)


async def restart(stage: Stage) -> None:
    stage.session.kill_plugin()
    await stage.session.launch()


async def lost(stage: Stage, *, node: str = NODE) -> Job:
    """Starts a task and kills the plugin; the next plugin runs and does not know the task."""
    job = stage.driver.task(node_id=node)
    await stage.start(job)
    await restart(stage)
    return job


async def test_a_running_task_that_nomad_forgot_goes_once_its_node_is_heard_of(
    stage: Stage,
) -> None:
    kept, forgotten = stage.driver.task(node_id=NODE), stage.driver.task(node_id=NODE)
    handle = await stage.driver.start(kept, IMAGE, SLEEPER)
    await stage.start(forgotten)
    await restart(stage)
    await sweeps(stage)
    assert len(stage.containerd.tasks.tasks) == 2
    await stage.session.recover(handle)
    await gone(stage, forgotten)
    assert (await stage.session.inspect(kept.id)).state is TaskState.RUNNING
    await stage.session.destroy(kept.id)


@pytest.mark.parametrize("node", ["node-2", ""])
async def test_a_task_of_another_node_stays_however_long_its_agent_is_away(
    stage: Stage, node: str, tmp_path: Path
) -> None:
    # Without a node's id, the directory of the allocations identifies an agent.
    root, stage.driver.alloc_root = stage.driver.alloc_root, tmp_path
    other = stage.driver.task(node_id=node)
    stage.driver.alloc_root = root
    handle = await stage.driver.start(other, IMAGE, SLEEPER)
    await restart(stage)
    mine = stage.driver.task(node_id=NODE)
    await stage.start(mine)
    await sweeps(stage)
    assert len(stage.containerd.tasks.tasks) == 2
    await stage.session.recover(handle)
    assert (await stage.session.inspect(other.id)).state is TaskState.RUNNING
    for job in (other, mine):
        await stage.session.destroy(job.id)


async def test_two_plugins_of_one_node_leave_each_others_tasks_alone(stage: Stage) -> None:
    # A killed agent leaves the plugin, and starts another plugin on return.
    recovered = stage.driver.task(node_id=NODE)
    handle = await stage.driver.start(recovered, IMAGE, SLEEPER)
    await restart(stage)
    other = AgentSession(stage.session._program, stage.session._config)
    await other.launch()
    try:
        mine, theirs = stage.driver.task(node_id=NODE), stage.driver.task(node_id=NODE)
        await stage.start(mine)
        # The plugin of this task is dead: only the worker shows that the task has an owner.
        await other.recover(handle)
        # The other task has only a lease, a snapshot and a directory so far.
        theirs.read_logs()
        fault = stage.containerd.hang(methods.SNAPSHOT_PREPARE, after=True)
        config = {"image": IMAGE, "command": "/bin/sh", "args": ["-c", SLEEPER]}
        starting = asyncio.create_task(other.start(theirs.config, config))
        await until(lambda: fault.calls, DEADLINE_S, "no start reaches its snapshot")
        await sweeps(stage)
        await sweeps(stage)
        fault.release()
        await starting
        await sweeps(stage)
        await sweeps(stage)
        for session, job in ((stage.session, mine), (other, theirs), (other, recovered)):
            assert (await session.inspect(job.id)).state is TaskState.RUNNING
            await session.destroy(job.id)
    finally:
        await other.close()


async def test_a_task_of_a_dead_run_goes_and_of_a_live_one_stays(stage: Stage) -> None:
    run = Presence(stage.driver.state_dir, RUN)
    alive = await lost(stage, node=run.name)
    dead = await lost(stage, node="run-0123456789abcdef")
    await gone(stage, dead)
    assert len(traces(stage, alive)) > 1
    run.close()  # as the end of the run would
    await gone(stage, alive)


@pytest.mark.parametrize("step", ["snapshot", "container", "task", "start"])
async def test_what_a_killed_plugin_left_of_a_start_goes_whole(stage: Stage, step: str) -> None:
    job = stage.driver.task(node_id=NODE)
    fault = stage.containerd.hang(STEPS[step][0], after=True)
    starting = asyncio.create_task(stage.start(job))
    await until(lambda: fault.calls, DEADLINE_S, f"no start reaches {step}")
    # The state directory is made beside the snapshot.
    await until(lambda: len(traces(stage, job)) > 1, DEADLINE_S, "one trace alone")
    stage.session.kill_plugin()
    with pytest.raises(DriverError):
        await starting
    stage.containerd.faults.clear()
    await stage.session.launch()
    assert len(traces(stage, job)) > 1
    helper = stage.driver.task(node_id=NODE)
    await stage.start(helper)
    await gone(stage, job)
    await stage.session.destroy(helper.id)


async def test_a_worker_whose_container_is_gone_is_told_to_end(stage: Stage) -> None:
    job = await lost(stage)
    pid = worker_pid(directory(stage, job))
    assert pid is not None
    client = Containerd(stage.containerd.address, stage.containerd.namespace)
    await client.tasks.kill(job.container, signal.SIGKILL, everyone=True)
    await until((directory(stage, job) / "exit").exists, DEADLINE_S)
    await client.tasks.delete(job.container)
    await client.containers.delete(job.container)
    await client.close()
    helper = stage.driver.task(node_id=NODE)
    await stage.start(helper)
    await gone(stage, job)
    await until(lambda: has_ended(pid), DEADLINE_S, "the worker stays")
    await stage.session.destroy(helper.id)


async def test_a_directory_whose_worker_was_killed_goes_too(stage: Stage) -> None:
    job = await lost(stage)
    pid = worker_pid(directory(stage, job))
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    stage.containerd.remove_all()
    assert directory(stage, job).exists()
    helper = stage.driver.task(node_id=NODE)
    await stage.start(helper)
    await gone(stage, job)
    await stage.session.destroy(helper.id)


async def test_a_worker_that_nobody_can_reach_is_ended(stage: Stage) -> None:
    job = await lost(stage)
    pid = worker_pid(directory(stage, job))
    assert pid is not None
    shutil.rmtree(directory(stage, job))
    stage.containerd.remove_all()
    await until(lambda: has_ended(pid), DEADLINE_S, "the worker stays")


async def test_an_exec_session_whose_plugin_died_goes_and_its_task_stays(stage: Stage) -> None:
    job = stage.driver.task(node_id=NODE)
    handle = await stage.driver.start(job, IMAGE, SLEEPER)
    running = asyncio.create_task(stage.session.exec(job.id, ["/bin/sleep", "600"], 60))

    def sessions() -> list[Path]:
        return list(directory(stage, job).glob("exec-*"))

    await until(lambda: sessions() and len(stage.containerd.tasks.tasks) == 1, DEADLINE_S)
    await until(lambda: _called(stage, methods.TASK_WAIT.path), DEADLINE_S)
    await sweeps(stage)
    assert sessions()
    assert not running.done()
    stage.session.kill_plugin()
    with pytest.raises(DriverError):
        await running
    await stage.session.launch()
    await stage.session.recover(handle)
    await until(lambda: not sessions(), DEADLINE_S, "the session's FIFOs stay")
    assert (await stage.session.inspect(job.id)).state is TaskState.RUNNING
    assert (await stage.session.exec(job.id, ["/bin/echo", "a"])).stdout == b"a\n"
    await stage.session.destroy(job.id)


def _called(stage: Stage, path: str) -> bool:
    return any(call.path == path for call in stage.containerd.calls)


def snapshots(stage: Stage, job: Job) -> int:
    """Returns the number of snapshots that starts of a task have requested."""
    asked = [call for call in stage.containerd.calls if call.path == methods.SNAPSHOT_PREPARE.path]
    return sum(call.request.key == identifiers.snapshot_key(job.container) for call in asked)


async def test_a_recovery_that_comes_during_a_removal_is_told_that_the_task_is_gone(
    stage: Stage,
) -> None:
    job = stage.driver.task(node_id=NODE)
    handle = await stage.driver.start(job, IMAGE, SLEEPER)
    await restart(stage)
    fault = stage.containerd.hang(methods.CONTAINER_DELETE, container=job.container)
    helper = stage.driver.task(node_id=NODE)
    await stage.start(helper)
    await until(lambda: fault.calls, DEADLINE_S, "nothing is removed")
    recovering = asyncio.create_task(stage.session.recover(handle))
    await known(stage, job)
    assert not recovering.done()
    fault.release()
    with pytest.raises(DriverError, match="task not found"):
        await recovering
    assert traces(stage, job) == []
    await stage.session.destroy(helper.id)


async def test_a_start_waits_for_the_removal_of_what_its_name_has_left(stage: Stage) -> None:
    job = await lost(stage)
    fault = stage.containerd.hang(methods.CONTAINER_DELETE, container=job.container)
    helper = stage.driver.task(node_id=NODE)
    await stage.start(helper)
    await until(lambda: fault.calls, DEADLINE_S, "nothing is removed")
    again = dataclasses.replace(job, config=dataclasses.replace(job.config, id=f"{job.id}2"))
    starting = asyncio.create_task(stage.driver.start(again, IMAGE, SLEEPER))
    await known(stage, again)
    # Tasks of other names start; the tested task has sent nothing to containerd.
    second = stage.driver.task(node_id=NODE)
    await stage.start(second)
    assert snapshots(stage, again) == 1
    assert not starting.done()
    fault.release()
    await starting
    assert snapshots(stage, again) == 2
    await sweeps(stage)
    assert (await stage.session.inspect(again.id)).state is TaskState.RUNNING
    active = snapshots_pb2.ACTIVE
    metadata = stage.containerd.metadata
    assert len([one for one in metadata.snapshots.values() if one.info.kind == active]) == 3
    for task in (again, helper, second):
        await stage.session.destroy(task.id)


async def test_a_start_that_waits_for_a_removal_has_its_whole_log(stage: Stage) -> None:
    job = stage.driver.task(node_id=NODE)
    out = LogReader(job.alloc.fifo("t", "stdout"))
    err = LogReader(job.alloc.fifo("t", "stderr"))
    command = {"image": IMAGE, "command": "/bin/sh"}
    await stage.session.start(job.config, {**command, "args": ["-c", "exec sleep 600"]})
    await restart(stage)
    fault = stage.containerd.hang(methods.TASK_KILL)
    helper = stage.driver.task(node_id=NODE)
    await stage.start(helper)
    await until(lambda: fault.calls, DEADLINE_S, "nothing is removed")
    again = dataclasses.replace(job, config=dataclasses.replace(job.config, id=f"{job.id}2"))
    options = {**command, "args": ["-c", "seq 1 1000"]}
    starting = asyncio.create_task(stage.session.start(again.config, options))
    fifo = job.alloc.fifo("t", "stderr")
    await until(lambda: holders(fifo, os.O_RDWR), DEADLINE_S, "the plugin holds no log")
    fault.release()
    await starting
    await stage.session.wait(again.id)
    whole = "".join(f"{number}\n" for number in range(1, 1001))
    assert (await asyncio.to_thread(out.finish)).decode() == whole
    await asyncio.to_thread(err.finish)
    for task in (again, helper):
        await stage.session.destroy(task.id)


async def test_a_start_and_a_destroy_that_take_long_are_left_alone(stage: Stage) -> None:
    job = stage.driver.task(node_id=NODE)
    fault = stage.containerd.hang(methods.TASK_CREATE)
    starting = asyncio.create_task(stage.start(job))
    await until(lambda: fault.calls, DEADLINE_S, "no start reaches its task")
    await sweeps(stage)
    assert len(stage.containerd.metadata.containers) == 1
    stage.containerd.faults.clear()
    await starting
    fault = stage.containerd.hang(methods.CONTAINER_DELETE)
    ending = asyncio.create_task(stage.session.destroy(job.id))
    await until(lambda: fault.calls, DEADLINE_S, "nothing is destroyed")
    await sweeps(stage)
    assert fault.calls == 1
    stage.containerd.faults.clear()
    await ending
    assert traces(stage, job) == []


async def test_what_was_made_says_whose_it_is(stage: Stage) -> None:
    job = stage.driver.task(node_id=NODE)
    await stage.start(job, labels=[{"team": "a"}])
    (container,) = stage.containerd.metadata.containers.values()
    labels = dict(container.labels)
    assert labels.pop(LABEL_MAKER).startswith("plugin-")
    assert labels == {
        "team": "a",
        LABEL_TASK_ID: job.id,
        LABEL_ALLOC_ID: job.config.alloc_id,
        LABEL_TASK_NAME: "t",
        LABEL_OWNER: NODE,
        LABEL_STATE_DIR: str(stage.driver.state_dir),
    }
    await stage.session.destroy(job.id)
