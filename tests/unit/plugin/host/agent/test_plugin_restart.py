"""A plugin that dies: calls are repeated on the next process, which first recovers the task."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from plugin.host.agent.plugin_restart import PluginRestarter
from plugin.host.agent.session import Handle
from proto.errors import Code, DriverError

HANDLE = Handle(task_id="t", encoded=b"")
BROKEN = DriverError("the connection broke", code=Code.UNAVAILABLE)


class Process:
    """A process that a test ends."""

    def __init__(self) -> None:
        self.alive = True


class Session:
    """A plugin as `PluginRestarter` sees a plugin; notes each launch, recovery and call."""

    def __init__(self) -> None:
        self.process = Process()
        self.said: list[str] = []

    @property
    def alive(self) -> bool:
        return self.process.alive

    async def launch(self) -> None:
        await asyncio.sleep(0)
        self.process = Process()
        self.said.append("launch")

    async def recover(self, handle: Handle) -> None:
        await asyncio.sleep(0)
        self.said.append(f"recover {handle.task_id}")

    async def died(self, error: DriverError, process: Process) -> bool:
        return error is BROKEN and not process.alive

    async def start(self) -> Handle:
        self.said.append("start")
        return HANDLE


def restarter(session: Any) -> PluginRestarter:
    return PluginRestarter(session, lambda _: None)


async def test_a_failure_that_is_told_after_the_restart_is_a_death_too() -> None:
    session = Session()
    calls = restarter(session)
    await calls.start(session.start)
    told = asyncio.Event()

    async def wait() -> None:
        if len(session.said) == 1:
            session.process.alive = False
            raise BROKEN
        session.said.append("wait")

    async def stop() -> None:
        if "launch" not in session.said:
            await told.wait()
            raise BROKEN
        session.said.append("stop")

    stopping = asyncio.create_task(calls.call(lambda: HANDLE, stop))
    await asyncio.sleep(0.01)
    await calls.call(lambda: HANDLE, wait)
    told.set()
    await stopping
    assert session.said == ["start", "launch", "recover t", "wait", "stop"]


async def test_the_first_call_to_a_new_process_comes_after_the_recovery() -> None:
    session = Session()
    calls = restarter(session)
    await calls.start(session.start)
    session.process.alive = False

    async def stop() -> None:
        session.said.append("stop")

    await asyncio.gather(*(calls.call(lambda: HANDLE, stop) for _ in range(2)))
    assert session.said == ["start", "launch", "recover t", "stop", "stop"]


async def test_an_error_of_a_plugin_that_lives_is_the_callers() -> None:
    session = Session()

    async def stop() -> None:
        raise BROKEN

    with pytest.raises(DriverError, match="the connection broke"):
        await restarter(session).call(lambda: None, stop)
    assert session.said == []


async def test_a_plugin_that_dies_in_each_start_is_given_up() -> None:
    session = Session()

    async def start() -> Handle:
        session.process.alive = False
        raise BROKEN

    with pytest.raises(DriverError, match="the plugin died 6 times"):
        await restarter(session).start(start)
    assert session.said == ["launch"] * 5
