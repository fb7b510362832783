"""Tests of a silent, absent or refusing containerd: the plugin's errors, and running tasks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from actors.model.nomad import Health, TaskState
from containerd.api import methods
from containerd.api.calls import RUNTIME_S, AsyncCalls
from containerd.api.methods import Method
from plugin.host.agent.session import Handle
from proto.errors import Code, DriverError
from tests.support.fakes.stage import IMAGE, SLEEPER, Stage
from tests.support.plugin.driver import Job
from tests.support.waiting import until
from tests.support.workers.launcher import worker_pid, worker_pids
from tests.support.workers.peers import has_ended


async def test_every_call_of_a_tasks_life_has_a_deadline(stage: Stage) -> None:
    stage.containerd.calls.clear()
    job = stage.driver.task()
    await stage.start(job)
    await stage.session.signal(job.id, "SIGCONT")
    assert (await stage.session.exec(job.id, ["/bin/echo", "hello"])).stdout == b"hello\n"
    await stage.session.stop(job.id)
    await stage.session.destroy(job.id)
    made = {call.path: call.deadline_s for call in stage.containerd.calls}
    assert {methods.TASK_START.path, methods.TASK_DELETE.path, methods.SNAPSHOT_REMOVE.path} <= set(
        made
    )
    del made[methods.TASK_WAIT.path]  # of an exec: ends with the command, or with the caller
    limit = RUNTIME_S + 1  # gRPC rounds up
    patient = {path: given for path, given in made.items() if given is None or given > limit}
    assert patient == {}


async def test_a_containerd_that_accepts_and_is_silent_is_named_at_the_deadline(
    tmp_path: Path,
) -> None:
    address = tmp_path / "silent.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen()
    with listener:
        calls = AsyncCalls(str(address), "n")
        with pytest.raises(DriverError) as failed:
            await calls(methods.VERSION, Empty(), "return its version", timeout_s=0.2)
        await calls.close()
        assert failed.value.code is Code.TIMEOUT
        assert failed.value.recoverable
        assert str(failed.value) == (
            f"containerd cannot return its version: containerd at {address} accepted the request"
            " and did not answer in time (see containerd's log (journalctl -u containerd); tasks"
            " keep running during its restart)"
        )


async def test_without_a_containerd_a_start_says_where_it_was_looked_for(stage: Stage) -> None:
    stage.containerd.down()
    error = await stage.refusal(stage.start(stage.driver.task()))
    assert f"containerd does not answer at {stage.containerd.address}" in str(error)
    assert "systemctl start containerd" in str(error)
    assert error.recoverable


async def test_the_fingerprint_says_what_is_wrong_until_containerd_is_back(stage: Stage) -> None:
    stage.containerd.down()
    async with contextlib.aclosing(stage.session.fingerprints()) as looks:
        look = await anext(looks)
        assert look.health is Health.UNHEALTHY
        assert "containerd does not answer at" in look.description
        stage.containerd.start()
        assert (await anext(looks)).health is Health.HEALTHY


async def test_a_task_ends_and_is_stopped_while_containerd_is_away(stage: Stage) -> None:
    short, long = stage.driver.task("short"), stage.driver.task("long")
    go = stage.driver.state_dir / "go"
    await stage.start(short, f"until test -e {go}; do sleep 0.05; done; exit 5")
    await stage.start(long)
    stage.containerd.down()
    go.touch()
    assert (await stage.session.wait(short.id)).exit_code == 5
    await stage.session.stop(long.id)
    assert (await stage.session.wait(long.id)).signal == signal.SIGTERM
    stage.containerd.start()
    for job in (short, long):
        await stage.session.destroy(job.id)


async def test_a_destroy_waits_for_a_containerd_that_restarts(stage: Stage) -> None:
    job = stage.driver.task()
    await stage.start(job)
    await stage.session.stop(job.id)
    stage.containerd.down()
    ending = asyncio.create_task(stage.session.destroy(job.id))
    assert (await stage.session.inspect(job.id)).state is TaskState.EXITED
    stage.containerd.start()
    await ending
    assert stage.containerd.leftovers() == []


@pytest.mark.parametrize(
    "method",
    [methods.TASK_DELETE, methods.SNAPSHOT_REMOVE, methods.CONTAINER_DELETE],
    ids=lambda method: method.path.rpartition(".")[2],
)
async def test_a_destroy_that_containerd_refuses_is_told_and_can_be_tried_again(
    stage: Stage, method: Method[object, object]
) -> None:
    job = stage.driver.task()
    await stage.start(job)
    await stage.session.stop(job.id)
    stage.containerd.fail(method, grpc.StatusCode.UNKNOWN, "it is in use: unknown")
    with pytest.raises(DriverError, match=r"containerd cannot .*: it is in use"):
        await stage.session.destroy(job.id)
    assert (await stage.session.inspect(job.id)).state is TaskState.EXITED
    stage.containerd.faults.clear()
    await stage.session.destroy(job.id)
    assert stage.containerd.leftovers() == []


async def test_a_task_with_its_worker_is_recovered_without_any_containerd(stage: Stage) -> None:
    job = stage.driver.task()
    job.read_logs()
    handle = await stage.session.start(job.config, _config())
    stage.session.kill_plugin()
    await stage.session.launch()
    stage.containerd.down()
    await stage.session.recover(handle)
    assert (await stage.session.inspect(job.id)).state is TaskState.RUNNING
    stage.containerd.start()
    await stage.session.destroy(job.id)


async def alone(stage: Stage) -> tuple[Job, Handle, int]:
    """Starts a task and kills plugin, worker and containerd; returns job, handle and worker pid."""
    job = stage.driver.task()
    job.read_logs()
    handle = await stage.session.start(job.config, _config())
    stage.session.kill_plugin()
    (pid,) = worker_pids(stage.driver.state_dir)
    os.kill(pid, signal.SIGKILL)
    stage.containerd.down()
    return job, handle, pid


async def test_a_task_whose_worker_died_is_recovered_at_its_shim_without_any_containerd(
    stage: Stage,
) -> None:
    job, handle, pid = await alone(stage)
    await stage.session.launch()
    await stage.session.recover(handle)
    directory = stage.driver.state_dir / "tasks" / job.container
    assert worker_pid(directory) not in {None, pid}
    await stage.session.stop(job.id)
    assert (await stage.session.wait(job.id)).signal == signal.SIGTERM
    stage.containerd.start()
    await stage.session.destroy(job.id)


async def test_an_exit_that_nobody_saw_is_learnt_while_containerd_is_away(stage: Stage) -> None:
    job = stage.driver.task()
    go = stage.driver.state_dir / "go"
    await stage.start(job, f"until test -e {go}; do sleep 0.05; done; exit 5")
    (pid,) = worker_pids(stage.driver.state_dir)
    stage.containerd.down()
    os.kill(pid, signal.SIGSTOP)
    go.touch()
    shim = stage.containerd.tasks.tasks[job.container].shim
    await until(lambda: has_ended(shim.pid), 10, "the task does not end")
    os.kill(pid, signal.SIGKILL)
    assert (await stage.session.wait(job.id)).exit_code == 5
    stage.containerd.start()
    await stage.session.destroy(job.id)


async def test_a_recovery_that_needs_containerd_touches_nothing_without_and_works_later(
    stage: Stage,
) -> None:
    job, handle, _ = await alone(stage)
    bundle = stage.containerd.tasks.tasks[job.container].bundle
    hidden = bundle.rename(bundle.with_name("hidden"))
    await stage.session.launch()
    with pytest.raises(DriverError, match="containerd does not answer") as failed:
        await stage.session.recover(handle)
    assert "task not found" not in str(failed.value)
    hidden.rename(bundle)
    await stage.back()
    await stage.session.recover(handle)
    await stage.session.stop(job.id)
    assert (await stage.session.wait(job.id)).signal == signal.SIGTERM
    await stage.session.destroy(job.id)


async def test_a_start_told_to_go_while_containerd_is_silent_ends_when_it_speaks_again(
    stage: Stage,
) -> None:
    undoing = [
        stage.containerd.hang(methods.TASK_GET),
        stage.containerd.hang(methods.SNAPSHOT_REMOVE),
    ]
    fault = stage.containerd.hang(methods.TASK_START)
    job = stage.driver.task()
    starting = asyncio.create_task(stage.start(job))
    await until(lambda: fault.calls or starting.done(), 20, "no task is started")
    stopping = asyncio.create_task(stage.session.stop(job.id))
    await until(lambda: undoing[0].calls, 20, "nothing is undone")
    # Told once more, in other words, while the undo is under way.
    destroying = asyncio.create_task(stage.session.destroy(job.id))
    assert (await stage.session.inspect(job.id)).state is TaskState.UNKNOWN
    stage.containerd.faults.clear()
    await asyncio.gather(stopping, destroying)
    assert "the start was cancelled" in str(await stage.refusal(starting))
    assert stage.containerd.leftovers() == []


async def test_steps_of_an_undo_keep_their_order_when_the_task_is_told_to_go_meanwhile(
    stage: Stage,
) -> None:
    stage.containerd.fail(methods.TASK_START, grpc.StatusCode.UNKNOWN, "no start: unknown")
    undoing = stage.containerd.hang(methods.TASK_GET)
    job = stage.driver.task()
    starting = asyncio.create_task(stage.start(job))
    await until(lambda: undoing.calls or starting.done(), 20, "nothing is undone")
    ways = (stage.session.stop(job.id), stage.session.destroy(job.id))
    telling = [asyncio.create_task(way) for way in ways]
    await stage.session.inspect(job.id)  # the answer comes after both requests
    # A task whose container goes first is never found again: the container must remain.
    assert job.container in stage.containerd.metadata.containers
    undoing.release()
    assert "no start" in str(await stage.refusal(starting))
    await asyncio.gather(*telling)
    assert stage.containerd.leftovers() == []


def _config() -> dict[str, object]:
    return {"image": IMAGE, "command": "/bin/sh", "args": ["-c", SLEEPER]}
