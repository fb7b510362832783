"""Actors on the event loop: order, failures, stops, and senders on other threads."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pykka
import pytest

from actors.asyncio_bridge import spawn, tell
from actors.loop_actor import LoopActor
from tests.support.waiting import until


class Recorder(LoopActor):
    """Records messages and hooks. A message that is an exception is raised."""

    def __init__(self, seen: list[object]) -> None:
        super().__init__()
        self.seen = seen
        self.busy = False

    def on_start(self) -> None:
        self.seen.append("start")

    def on_stop(self) -> None:
        self.seen.append("stop")

    def on_failure(self, *failure: Any) -> None:
        self.seen.append(("failure", failure[1]))

    def on_receive(self, message: object) -> object:
        assert not self.busy, "two messages are handled at the same time"
        self.busy = True
        try:
            if message == "more":
                self.actor_ref.tell("sent by itself")
            if isinstance(message, Exception):
                raise message
            self.seen.append(message)
            return ("answer", message)
        finally:
            self.busy = False


def recorder() -> tuple[pykka.ActorRef[Any], list[object]]:
    """Starts an actor; returns its reference and its records."""
    seen: list[object] = []
    return Recorder.start(seen), seen


async def test_a_sender_never_runs_a_handler_and_messages_keep_their_order() -> None:
    ref, seen = recorder()
    ref.tell("more")
    ref.tell(1)
    ref.tell(2)
    assert seen == ["start"]
    await until(lambda: len(seen) == 5, 5)
    assert seen == ["start", "more", 1, 2, "sent by itself"]
    ref.stop(block=False)


async def test_messages_of_other_threads_arrive_in_each_threads_order() -> None:
    ref, seen = recorder()

    def send(name: str) -> None:
        for number in range(200):
            ref.tell((name, number))

    await asyncio.gather(*(asyncio.to_thread(send, name) for name in "abc"))
    await until(lambda: len(seen) == 601, 5)
    for name in "abc":
        assert [each for each in seen if each[0] == name] == [(name, n) for n in range(200)]  # type: ignore[index]
    ref.stop(block=False)


async def test_another_thread_may_wait_for_an_answer_a_failure_and_the_end() -> None:
    ref, seen = recorder()
    assert await asyncio.to_thread(ref.ask, "x") == ("answer", "x")
    with pytest.raises(ValueError, match="bad"):
        await asyncio.to_thread(ref.ask, ValueError("bad"))
    assert ref.is_alive()
    assert await asyncio.to_thread(ref.stop) is True
    assert await asyncio.to_thread(ref.stop) is False
    assert seen == ["start", "x", "stop"]
    with pytest.raises(pykka.ActorDeadError):
        await asyncio.to_thread(ref.ask, "late")


async def test_a_stopped_actor_refuses_messages_and_drops_what_was_on_the_way() -> None:
    ref, seen = recorder()
    ref.tell("before")
    first = ref.stop(block=False)
    dropped = ref.ask("after", block=False)
    again = ref.stop(block=False)
    ref.tell("dropped")
    await until(lambda: not ref.is_alive(), 5)
    await asyncio.sleep(0)
    assert seen == ["start", "before", "stop"]
    assert await asyncio.to_thread(first.get) is True
    assert await asyncio.to_thread(again.get) is True
    with pytest.raises(pykka.ActorDeadError, match="stopped before handling"):
        await asyncio.to_thread(dropped.get)
    assert not tell(ref, "late")
    assert ref not in pykka.ActorRegistry.get_all()


async def test_an_exception_of_a_handler_ends_the_actor_after_on_failure() -> None:
    ref, seen = recorder()
    error = ValueError("unexpected")
    ref.tell(error)
    ref.tell("dropped")
    await until(lambda: not ref.is_alive(), 5)
    await asyncio.sleep(0)
    assert seen == ["start", ("failure", error)]
    assert ref not in pykka.ActorRegistry.get_all()


async def test_actors_add_no_threads() -> None:
    before = threading.active_count()
    refs = [Recorder.start([]) for _ in range(200)]
    for ref in refs:
        ref.tell("x")
    await asyncio.sleep(0)
    assert threading.active_count() == before
    for ref in refs:
        ref.stop(block=False)


async def test_work_that_is_cancelled_at_once_still_begins_and_reports_its_end() -> None:
    begun: list[str] = []
    ends: list[BaseException | None] = []

    async def work() -> None:
        begun.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            begun.append("cleaned up")

    loop = asyncio.get_running_loop()
    spawn(loop, work(), lambda _, error: ends.append(error)).cancel()
    await until(lambda: ends, 5)
    assert begun == ["begun", "cleaned up"]
    assert isinstance(ends[0], asyncio.CancelledError)
