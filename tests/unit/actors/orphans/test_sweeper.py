"""Claims on containers: the supervisor grants each once, and to nobody who has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from actors.orphans.sweeper import SupervisorRegister
from actors.supervisor import Supervisor
from proto.errors import Code, DriverError
from tests.support.services import services

Play = Callable[[Callable[[SupervisorRegister], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def play() -> Iterator[Play]:
    supervisor = Supervisor.start(lambda _: services())

    def run(story: Callable[[SupervisorRegister], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            await story(SupervisorRegister(supervisor))

        asyncio.run(whole())

    yield run
    supervisor.stop()


def test_a_container_is_claimed_once_until_it_is_released(play: Play) -> None:
    async def story(register: SupervisorRegister) -> None:
        assert await register.tracked() == frozenset()
        assert await register.claim("a")
        assert not await register.claim("a")
        assert await register.claim("b")
        register.release("a")
        assert await register.claim("a")

    play(story)


def test_who_was_cancelled_while_asking_has_no_claim(play: Play) -> None:
    async def story(register: SupervisorRegister) -> None:
        asking = asyncio.create_task(register.claim("a"))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert await register.claim("a")

    play(story)


def test_without_a_supervisor_nothing_can_be_asked(play: Play) -> None:
    async def story(register: SupervisorRegister) -> None:
        register._supervisor.stop()
        with pytest.raises(DriverError, match="shutting down") as refused:
            await register.claim("a")
        assert refused.value.code is Code.UNAVAILABLE
        register.release("a")

    play(story)
