"""Claims on containers: the supervisor grants each once, and never to a cancelled caller."""

from __future__ import annotations

import asyncio

import pytest

from actors.orphans.sweeper import SupervisorRegister
from actors.supervisor import Supervisor
from proto.errors import Code, DriverError
from tests.support.plugin.services import services


@pytest.fixture
def register(runner: asyncio.Runner) -> SupervisorRegister:
    async def made() -> SupervisorRegister:
        return SupervisorRegister(Supervisor.start(lambda _: services()))

    return runner.run(made())


async def test_a_container_is_claimed_once_until_it_is_released(
    register: SupervisorRegister,
) -> None:
    assert await register.tracked() == frozenset()
    assert await register.claim("a")
    assert not await register.claim("a")
    assert await register.claim("b")
    register.release("a")
    assert await register.claim("a")


async def test_who_was_cancelled_while_asking_has_no_claim(register: SupervisorRegister) -> None:
    asking = asyncio.create_task(register.claim("a"))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert await register.claim("a")


async def test_without_a_supervisor_nothing_can_be_asked(register: SupervisorRegister) -> None:
    await asyncio.to_thread(register._supervisor.stop)
    with pytest.raises(DriverError, match="shutting down") as refused:
        await register.claim("a")
    assert refused.value.code is Code.UNAVAILABLE
    register.release("a")
