"""Contract tests of a gateway: the fake and the real gateway behave alike for Nomad's services.

The real gateway runs on a fake containerd; the tasks are real processes with real workers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.actor_gateway import ActorGateway
from actors.gateway import Gateway
from actors.handles.handle import VERSION
from actors.model.nomad import ExecInput, ExecOutput, Health, TaskConfig, TaskState
from actors.model.settings import TaskOptions
from proto.errors import Code, DriverError
from tests.support.fakes.containerd import FakeContainerd
from tests.support.fakes.gateway import FakeGateway
from tests.support.needs import need_root_here
from tests.support.plugin.driver import Driver, Job
from tests.support.plugin.gateways import settings, shut_down
from tests.support.workers.peers import LauncherProcess

IMAGE = "127.0.0.1:9/gateway:1"
ABSENT = "fail-recoverable"  # the fake's word for an unavailable image
GONE = "task not found for given id"
STRANGER = "alloc/nobody/00000000"


class House:
    """Builder of successive gateways, which know each other's tasks by their handles."""

    def __init__(self, make: Callable[[], Gateway], driver: Driver) -> None:
        self._make = make
        self._driver = driver
        self.settings = settings(driver.containerd, driver.state_dir)

    @contextlib.asynccontextmanager
    async def gateway(self) -> AsyncIterator[Gateway]:
        """Builds a configured gateway."""
        gateway = self._make()
        await gateway.configure(self.settings)
        try:
            yield gateway
        finally:
            if isinstance(gateway, ActorGateway):
                await shut_down(gateway)

    def job(self) -> Job:
        """Prepares a task's allocation, whose logs have a reader."""
        job = self._driver.task()
        job.read_logs()
        return job


def options(image: str = IMAGE) -> TaskOptions:
    """Builds a task that runs until a stop is requested."""
    return TaskOptions(image=image, image_pull_policy="never", command="/bin/sleep", args=("600",))


def _fake_gateway() -> FakeGateway:
    gateway = FakeGateway()
    gateway.wait_failures, gateway.stream_failures = 3, 0  # other tests cover failures
    return gateway


@pytest.fixture(scope="module")
def launcher() -> Iterator[LauncherProcess]:
    """Yields one launcher for all tests of the module."""
    with LauncherProcess() as running:
        yield running


@pytest.fixture(params=["fake", "actors"])
def house(
    request: pytest.FixtureRequest, tmp_path: Path, launcher: LauncherProcess
) -> Iterator[House]:
    """Yields a house with a containerd of the test; checks that no object or worker is left."""
    if request.param == "actors":
        need_root_here()
    with FakeContainerd() as containerd:
        containerd.add_image(IMAGE)
        driver = Driver(containerd, tmp_path)
        driver.state_dir = launcher.state_dir
        yield House(_fake_gateway if request.param == "fake" else ActorGateway, driver)
        driver.wait_clean()


async def refused(call: Awaitable[object], code: Code, text: str) -> None:
    """Expects the call to fail with the code and the words."""
    with pytest.raises(DriverError) as failed:
        await call
    assert failed.value.code is code
    assert failed.value.brief == text


async def started(gateway: Gateway, house: House) -> TaskConfig:
    """Starts a task and returns once the task runs."""
    config = house.job().config
    await gateway.start_task(config, options())
    return config


async def end(gateway: Gateway, task: TaskConfig) -> None:
    await gateway.destroy_task(task.id, force=True)


async def test_it_may_be_configured_often_and_keeps_its_tasks(house: House) -> None:
    async with house.gateway() as gateway:
        task = await started(gateway, house)
        for _ in range(2):
            await gateway.configure(house.settings)
        assert (await gateway.inspect_task(task.id)).state is TaskState.RUNNING
        await end(gateway, task)


async def test_a_start_gives_a_handle_and_the_task_runs(house: House) -> None:
    async with house.gateway() as gateway:
        task = house.job().config
        handle = await gateway.start_task(task, options())
        assert handle.handle_version == VERSION
        assert handle.driver_state
        status = await gateway.inspect_task(task.id)
        assert (status.id, status.name, status.state) == (task.id, "t", TaskState.RUNNING)
        assert status.started_at_ns > 0
        assert status.completed_at_ns == 0
        assert task.alloc_id in status.driver_attributes["containerName"]
        await end(gateway, task)


async def test_a_task_is_started_once(house: House) -> None:
    async with house.gateway() as gateway:
        task = await started(gateway, house)
        text = f'task with ID "{task.id}" already started'
        await refused(gateway.start_task(task, options()), Code.ALREADY_EXISTS, text)
        await end(gateway, task)


async def test_a_task_that_did_not_start_is_unknown(house: House) -> None:
    async with house.gateway() as gateway:
        for _ in range(5):
            task = house.job().config
            with pytest.raises(DriverError):
                await gateway.start_task(task, options(ABSENT))
            for ask in (gateway.wait_task, gateway.inspect_task):
                await refused(ask(task.id), Code.NOT_FOUND, GONE)
            await gateway.stop_task(task.id, 1, "")
            await gateway.destroy_task(task.id, force=False)


async def test_every_caller_hears_of_the_end_and_later_ones_too(house: House) -> None:
    async with house.gateway() as gateway:
        task = await started(gateway, house)
        waits = [asyncio.create_task(gateway.wait_task(task.id)) for _ in range(3)]
        await gateway.stop_task(task.id, 10, "15")
        results = [await wait for wait in waits]
        assert results == [await gateway.wait_task(task.id)] * 3
        assert (await gateway.inspect_task(task.id)).state is TaskState.EXITED
        await gateway.stop_task(task.id, 10, "15")
        await gateway.destroy_task(task.id, force=False)
        for call in (gateway.wait_task(task.id), gateway.inspect_task(task.id)):
            await refused(call, Code.NOT_FOUND, GONE)


async def test_a_task_that_runs_is_destroyed_only_by_force(house: House) -> None:
    async with house.gateway() as gateway:
        task = await started(gateway, house)
        call = gateway.destroy_task(task.id, force=False)
        await refused(call, Code.PRECONDITION, "cannot destroy running task")
        await gateway.destroy_task(task.id, force=True)
        await refused(gateway.inspect_task(task.id), Code.NOT_FOUND, GONE)


async def test_an_unknown_task_is_not_found_but_stopped_and_destroyed(house: House) -> None:
    async with house.gateway() as gateway:
        await gateway.stop_task(STRANGER, 1, "")
        await gateway.destroy_task(STRANGER, force=True)
        streams = (
            gateway.task_stats(STRANGER, 1),
            gateway.exec_task_streaming(STRANGER, ["true"], tty=False, inputs=_nothing()),
        )
        for call in (
            gateway.wait_task(STRANGER),
            gateway.inspect_task(STRANGER),
            gateway.signal_task(STRANGER, "SIGHUP"),
            gateway.exec_task(STRANGER, ["true"], 1),
            *(anext(stream) for stream in streams),
        ):
            await refused(call, Code.NOT_FOUND, GONE)


async def test_a_signal_is_sent_and_a_wrong_one_named(house: House) -> None:
    async with house.gateway() as gateway:
        task = await started(gateway, house)
        await gateway.signal_task(task.id, "SIGCONT")
        call = gateway.signal_task(task.id, "INVALID")
        await refused(call, Code.INVALID, "Invalid signal: INVALID")
        await end(gateway, task)


async def test_a_task_is_recovered_by_its_handle_alone_and_as_often_as_asked(house: House) -> None:
    async with house.gateway() as first:
        task = house.job().config
        handle = await first.start_task(task, options())
    async with house.gateway() as second:
        await refused(second.inspect_task(task.id), Code.NOT_FOUND, GONE)
        for _ in range(2):
            await second.recover_task(task, handle.handle_version, handle.driver_state)
        assert (await second.inspect_task(task.id)).state is TaskState.RUNNING
        await end(second, task)


@pytest.mark.parametrize("version", [1, VERSION])
async def test_a_handle_that_means_nothing_is_refused(house: House, version: int) -> None:
    async with house.gateway() as gateway:
        task = house.job().config
        with pytest.raises(DriverError, match=r"^failed to decode task state"):
            await gateway.recover_task(task, version, b"\x00")
        await refused(gateway.inspect_task(task.id), Code.NOT_FOUND, GONE)


async def test_the_first_fingerprint_comes_at_once_and_the_stream_goes_on(house: House) -> None:
    async with house.gateway() as gateway:
        looks = gateway.fingerprints()
        first = await anext(looks)
        assert first.health is Health.HEALTHY
        assert first.attributes
        second = asyncio.ensure_future(anext(looks))
        done, _ = await asyncio.wait([second], timeout=0.1)
        assert not done
        second.cancel()
        await asyncio.wait([second])


async def test_stats_begin_at_once_and_end_with_the_task(house: House) -> None:
    async with house.gateway() as gateway:
        task = await started(gateway, house)
        samples = gateway.task_stats(task.id, 0.1)
        sample = await anext(samples)
        assert sample.task_id == task.id
        assert sample.timestamp_ns > 0
        await gateway.stop_task(task.id, 10, "15")
        assert all([more.task_id == task.id async for more in samples])
        await end(gateway, task)


async def _nothing() -> AsyncIterator[ExecInput]:
    yield ExecInput(stdin_close=True)


async def _words() -> AsyncIterator[ExecInput]:
    yield ExecInput(stdin=b"some ")
    yield ExecInput(stdin=b"words")
    yield ExecInput(stdin_close=True)


async def _silence() -> AsyncIterator[ExecInput]:
    await asyncio.Event().wait()
    yield ExecInput()


async def test_a_command_gives_its_output_and_its_exit(house: House) -> None:
    async with house.gateway() as gateway:
        task = await started(gateway, house)
        result = await gateway.exec_task(task.id, ["echo", "hello"], 10)
        assert b"hello" in result.stdout
        assert result.exit.exit_code >= 0
        await end(gateway, task)


async def test_a_streamed_command_gets_its_stdin_and_ends_with_its_exit_alone(house: House) -> None:
    async with house.gateway() as gateway:
        task = await started(gateway, house)
        session: Any = gateway.exec_task_streaming(task.id, ["cat"], tty=False, inputs=_words())
        outputs: list[ExecOutput] = [output async for output in session]
        assert b"".join(output.stdout for output in outputs) == b"some words"
        last = outputs[-1]
        assert last == ExecOutput(exit=last.exit)
        assert last.exit is not None
        assert [output.exit for output in outputs[:-1]] == [None] * (len(outputs) - 1)
        assert any(output.stdout_close for output in outputs)
        await end(gateway, task)


async def test_a_streamed_command_ends_when_nobody_listens_any_more(house: House) -> None:
    async with house.gateway() as gateway:
        task = await started(gateway, house)
        session: Any = gateway.exec_task_streaming(task.id, ["cat"], tty=False, inputs=_silence())
        listening = asyncio.ensure_future(anext(session))
        await asyncio.wait([listening], timeout=0.1)
        listening.cancel()
        await asyncio.wait([listening])
        await session.aclose()
        assert (await gateway.inspect_task(task.id)).state is TaskState.RUNNING
        await end(gateway, task)
