"""The DEBUG lines of a start, a recovery, a removal and an undo tell the story of a task.

A real launcher and workers, on the fake containerd.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import grpc
import pytest

from actors.actor_gateway import ActorGateway
from actors.model.settings import TaskOptions
from containerd.api import methods
from proto.errors import DriverError
from tests.support.fakes.containerd import FakeContainerd
from tests.support.needs import need_root_here
from tests.support.plugin.driver import Driver, Job
from tests.support.plugin.gateways import configured
from tests.support.waiting import until
from tests.support.workers.peers import LauncherProcess

IMAGE = "127.0.0.1:9/story:1"
OPTIONS = TaskOptions(image=IMAGE, image_pull_policy="never", command="/bin/sleep", args=("600",))
KEYS = {"task_id", "alloc_id", "container_id", "reason", "elapsed_ms"}
# Steps of one group run together; each group begins after the end of the previous group.
START = [
    {"job checked"},
    {"image ready"},
    {"start admitted to the runtime"},
    {
        "state directory created",
        *("worker forked", "mount sources pinned", "snapshot prepared", "spec built"),
        "container created",
    },
    {"task created"},
    {"worker waits for the exit", "mounts checked"},
    {"task started"},
    {"mount sources released"},
]
REMOVAL = [
    {"task deleted"},
    {"snapshot removed"},
    {"container deleted"},
    {"worker ended"},
    {"mount sources released"},
    {"state directory removed"},
]


class Story:
    """A gateway beside a launcher and the fake containerd, and the steps that the driver logs."""

    def __init__(
        self,
        containerd: FakeContainerd,
        launcher: LauncherProcess,
        driver: Driver,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        self.containerd = containerd
        self.driver = driver
        self._launcher = launcher
        self._caplog = caplog
        self._gateway: ActorGateway | None = None

    def gateway(self) -> AbstractAsyncContextManager[ActorGateway]:
        """Returns a block with a separate gateway on the same tasks."""
        return configured(self.containerd, self._launcher.state_dir)

    def messages(self) -> list[str]:
        """Returns all lines since the last call of `steps`."""
        return [record.getMessage() for record in self._caplog.records]

    def steps(self) -> list[logging.LogRecord]:
        """Returns the lines of starts, recoveries and removals since the last call."""
        steps = [
            record
            for record in self._caplog.records
            if record.name.startswith("actors.lifecycle.") and record.levelno == logging.DEBUG
        ]
        self._caplog.clear()
        return steps


@pytest.fixture
def told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Story]:
    """Yields a story whose task is removed at the end."""
    need_root_here()
    caplog.set_level(logging.DEBUG)
    with FakeContainerd() as containerd, LauncherProcess() as launcher:
        containerd.add_image(IMAGE)
        yield Story(containerd, launcher, Driver(containerd, tmp_path), caplog)
        assert containerd.leftovers() == []


def in_order(steps: list[logging.LogRecord], groups: list[set[str]]) -> None:
    """Checks that the messages are the groups, in sequence, and nothing else."""
    messages = [record.getMessage() for record in steps]
    for group in groups:
        assert set(messages[: len(group)]) == group, messages
        messages = messages[len(group) :]
    assert messages == []


def complete(steps: list[logging.LogRecord], job: Job, reason: str) -> None:
    """Checks the keys of each line."""
    for record in steps:
        assert vars(record).keys() >= KEYS
        line = vars(record)
        assert line["task_id"] == job.id, record.getMessage()
        assert line["alloc_id"] == job.config.alloc_id
        assert line["container_id"] == job.container
        assert line["reason"] == reason
        assert line["elapsed_ms"] >= 0
    elapsed = [vars(record)["elapsed_ms"] for record in steps]
    assert elapsed == sorted(elapsed)


async def test_start_recovery_and_removal_log_each_step_with_the_same_keys(told: Story) -> None:
    job = told.driver.task()
    job.read_logs()
    async with told.gateway() as gateway:
        started = await gateway.start_task(job.config, OPTIONS)
        await until(lambda: "mount sources released" in told.messages(), 10, "the pins stay")
    steps = told.steps()
    in_order(steps, START)
    complete(steps, job, "Nomad starts the task")
    async with told.gateway() as gateway:
        await gateway.recover_task(job.config, started.handle_version, started.driver_state)
        steps = told.steps()
        in_order(steps, [{"handle read"}, {"worker found"}, {"task recovered"}])
        complete(steps, job, "Nomad recovers the task")
        await gateway.destroy_task(job.id, force=True)
        steps = told.steps()
        in_order(steps, REMOVAL)
        complete(steps, job, "Nomad destroys the task")
    await job.logs_end()


async def test_an_undo_logs_each_step_with_the_failure_as_reason(told: Story) -> None:
    job = told.driver.task()
    job.read_logs()
    async with told.gateway() as gateway:
        told.containerd.fail(methods.TASK_START, grpc.StatusCode.UNKNOWN, "no luck")
        with pytest.raises(DriverError) as failed:
            await gateway.start_task(job.config, OPTIONS)
        told.containerd.faults.clear()
        await gateway.start_failed(job.config, failed.value)
    steps = told.steps()
    messages = [record.getMessage() for record in steps]
    assert "task started" not in messages
    undone = messages[messages.index("task created") + 3 : -1]
    assert undone[:1] == ["start undone: task"]
    assert set(undone) == {
        f"start undone: {name}"
        for name in (
            *("task", "container", "snapshot", "worker", "network files", "pinned sources"),
            *("state directory", "cgroup"),
        )
    }
    assert messages[-1] == "start failed"
    assert all(str(failed.value.brief) in vars(step)["reason"] for step in steps[-9:])
    await job.logs_end()
