"""Tests of the log at DEBUG: each step of a task's life is one line, with the same keys."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from actors.actor_gateway import ActorGateway
from actors.model.settings import TaskOptions
from tests.support.fakes.containerd import FakeContainerd
from tests.support.needs import need_root_here
from tests.support.plugin.driver import Driver, Job
from tests.support.plugin.gateways import configured
from tests.support.waiting import until
from tests.support.workers.peers import LauncherProcess

IMAGE = "127.0.0.1:9/steps:1"


def ordered(lines: Sequence[str], steps: Sequence[str]) -> None:
    """Checks that the steps are among the lines, each once, in the given order."""
    assert [line for line in lines if line in steps] == list(steps), "\n".join(lines)


def fields_of(caplog: pytest.LogCaptureFixture, room: str, job: Job) -> list[dict[str, object]]:
    """Returns the fields of a package's records, and checks that all name the job's task."""
    records = [vars(r) for r in caplog.records if r.name.startswith(f"{room}.")]
    assert {(r["task_id"], r["alloc_id"]) for r in records} == {(job.id, job.config.alloc_id)}
    return records


async def start(gateway: ActorGateway, driver: Driver, script: str) -> Job:
    """Starts a task that has printed a first line."""
    job = driver.task()
    job.read_logs()
    options = TaskOptions(
        image=IMAGE, image_pull_policy="never", command="/bin/sh", args=("-c", script)
    )
    await gateway.start_task(job.config, options)
    await until(lambda: b"ready" in job.out, 20, "the task prints nothing")
    return job


@pytest.fixture
def house(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[tuple[FakeContainerd, LauncherProcess, Driver]]:
    """Yields a containerd, a launcher and a driver; the log has the lines at DEBUG."""
    need_root_here()
    caplog.set_level(logging.DEBUG, logger="actors")
    with FakeContainerd() as containerd, LauncherProcess() as launcher:
        containerd.add_image(IMAGE)
        yield containerd, launcher, Driver(containerd, tmp_path)


async def test_the_steps_of_a_stop_and_of_a_removal(
    house: tuple[FakeContainerd, LauncherProcess, Driver], caplog: pytest.LogCaptureFixture
) -> None:
    containerd, launcher, driver = house
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    async with configured(containerd, launcher.state_dir) as gateway:
        job = await start(gateway, driver, script)
        await gateway.stop_task(job.id, 0.2, "SIGTERM")
        await gateway.destroy_task(job.id, force=False)
    records = fields_of(caplog, "actors.task", job)
    steps = [
        "starting task",
        "task started",
        "stop of task requested",
        "signal sent to task SIGTERM",
        "task still runs after its stop signal",
        "signal sent to task SIGKILL",
        "task ended",
        "stop of task completed",
        "removal of task requested",
        "task removed",
    ]
    sent = "signal sent to task"
    lines = [f"{r['msg']} {r['signal']}" if r["msg"] == sent else str(r["msg"]) for r in records]
    ordered(lines, steps)
    for record in records[1:]:
        assert record["container_id"] == job.container, record["msg"]
        if record["msg"] in {"task started", sent, "stop of task completed", "task removed"}:
            assert isinstance(record["elapsed_ms"], int)


async def test_the_steps_of_a_command(
    house: tuple[FakeContainerd, LauncherProcess, Driver], caplog: pytest.LogCaptureFixture
) -> None:
    containerd, launcher, driver = house
    async with configured(containerd, launcher.state_dir) as gateway:
        job = await start(gateway, driver, "echo ready; exec sleep 600")
        result = await gateway.exec_task(job.id, ["/bin/sh", "-c", "exit 3"], 20.0)
        assert result.exit.exit_code == 3
        await gateway.destroy_task(job.id, force=True)
    records = fields_of(caplog, "actors.exec", job)
    steps = ["exec created", "exec started", "exec ended", "exec removed"]
    assert [record["msg"] for record in records] == steps
    assert {record["container_id"] for record in records} == {job.container}
    assert len({record["exec_id"] for record in records}) == 1
    assert all(isinstance(record["elapsed_ms"], int) for record in records)
    assert records[2]["exit_code"] == 3
