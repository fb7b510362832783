"""Sharing of pulls by equal requests; protection of images in use from removal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from actors.asyncio_bridge import Reply, tell
from actors.events import EventActor
from actors.images.actor import ImageActor
from actors.images.messages import (
    EnsureImage,
    ImageReady,
    ImageRequest,
    LeaveImage,
    PullPolicy,
    Retire,
    TaskIdentity,
)
from actors.model.settings import Auth
from containerd.image.config import ImageConfig
from containerd.pull.protocol import Archive
from proto.errors import Code, DriverError
from tests.support.waiting import until

TASK = TaskIdentity(task_id="a/t/1", alloc_id="a", task_name="t")


def ready(name: str) -> ImageReady:
    """Builds an image."""
    return ImageReady(name=name, digest="sha256:0", chain_id="sha256:1", config=ImageConfig())


def request(name: str, auth: Auth | None = None, archive: Archive | None = None) -> ImageRequest:
    """Builds a request; requests with equal arguments are equal."""
    return ImageRequest(
        written=name,
        name=name,
        snapshotter="overlayfs",
        timeout_s=60,
        auth=auth,
        policy=PullPolicy.MISSING,
        archive=archive,
    )


class Store:
    """A store whose pulls last until the test ends each pull."""

    def __init__(self) -> None:
        self.asked: list[ImageRequest] = []
        self.cancelled: list[ImageRequest] = []
        self.gate = asyncio.Event()
        self.result: ImageReady | DriverError | None = None

    async def ensure(self, request: ImageRequest, _: Callable[[str], object]) -> ImageReady:
        self.asked.append(request)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request)
            raise
        if isinstance(self.result, DriverError):
            raise self.result
        return self.result or ready(request.name)


class Collector:
    """Finds the same images due at every sweep; a removal lasts until the test ends the removal."""

    pause_s = 0.01

    def __init__(self, *names: str) -> None:
        self.names = names
        self.sweeps = 0
        self.busy: list[set[str]] = []
        self.removing: list[str] = []
        self.gate = asyncio.Event()

    async def due(self, busy: set[str]) -> tuple[str, ...]:
        self.sweeps += 1
        self.busy.append(busy)
        return self.names

    async def remove_quietly(self, name: str) -> None:
        self.removing.append(name)
        await self.gate.wait()


class Actor:
    """A running ImageActor."""

    def __init__(self, store: Store, collector: Collector | None) -> None:
        loop: Any = asyncio.get_running_loop()
        self._events = EventActor.start()
        self.ref = ImageActor.start(loop, store, self._events, collector)

    def ask(self, wanted: ImageRequest) -> Reply[ImageReady]:
        reply: Reply[ImageReady] = Reply()
        tell(self.ref, EnsureImage(request=wanted, task=TASK, reply=reply))
        return reply

    def leave(self, reply: Reply[ImageReady]) -> None:
        tell(self.ref, LeaveImage(reply=reply))

    def stop(self) -> None:
        self.ref.stop(block=False)
        self._events.stop(block=False)


@contextlib.asynccontextmanager
async def running(store: Store, collector: Collector | None = None) -> AsyncGenerator[Actor, None]:
    """Yields a running actor and stops the actor at the end."""
    actor = Actor(store, collector)
    try:
        yield actor
    finally:
        actor.stop()
        await until(lambda: not actor.ref.is_alive(), 5)


async def test_equal_requests_share_one_pull_and_one_failure() -> None:
    store = Store()
    store.result = DriverError("no", code=Code.DENIED)
    async with running(store) as actor:
        replies = [actor.ask(request("x")) for _ in range(5)]
        await until(lambda: store.asked, 5)
        store.gate.set()
        for reply in replies:
            with pytest.raises(DriverError, match="no"):
                await reply.future
        assert len(store.asked) == 1


async def test_requests_with_other_credentials_share_nothing() -> None:
    store = Store()
    async with running(store) as actor:
        users = [None, Auth(username="a", password="1"), Auth(username="a", password="2")]
        replies = [actor.ask(request("x", auth)) for auth in users * 2]
        await until(lambda: len(store.asked) == 3, 5)
        store.gate.set()
        for reply in replies:
            await reply.future
        assert {wanted.auth for wanted in store.asked} == set(users)


async def test_each_step_of_a_pull_is_a_line_with_the_task_and_the_image(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="actors.images")
    store = Store()
    async with running(store) as actor:
        replies = [actor.ask(request("x")) for _ in range(2)]
        await until(lambda: store.asked, 5)
        store.gate.set()
        for reply in replies:
            await reply.future
        store.result = DriverError("no", code=Code.DENIED)
        with pytest.raises(DriverError, match="no"):
            await actor.ask(request("y")).future
    lines = [vars(record) for record in caplog.records if record.name == "actors.images.actor"]
    assert [(line["msg"], line["image"]) for line in lines] == [
        ("image requested", "x"),
        ("image request joins a running request", "x"),
        ("image ready", "x"),
        ("image ready", "x"),
        ("image requested", "y"),
        ("image not available", "y"),
    ]
    assert {(line["task_id"], line["alloc_id"]) for line in lines} == {("a/t/1", "a")}
    assert lines[-1]["reason"] == "no"
    assert all(isinstance(line["elapsed_ms"], int) for line in (lines[2], lines[-1]))


async def test_the_last_one_to_leave_ends_the_pull() -> None:
    store = Store()
    async with running(store) as actor:
        one, two = actor.ask(request("x")), actor.ask(request("x"))
        await until(lambda: store.asked, 5)
        actor.leave(one)
        other = actor.ask(request("y"))
        await until(lambda: len(store.asked) == 2, 5)
        assert store.cancelled == []
        actor.leave(two)
        await until(lambda: store.cancelled, 5)
        assert store.cancelled == [request("x")]
        store.gate.set()
        assert (await other.future).name == "y"


async def test_what_is_due_is_removed_while_nobody_wants_it() -> None:
    collector = Collector("x")
    async with running(Store(), collector):
        await until(lambda: collector.removing, 5)
        collector.gate.set()
        await until(lambda: len(collector.removing) > 1, 5)


async def test_an_image_of_a_start_is_not_removed_until_the_start_has_ended() -> None:
    store, collector = Store(), Collector("x")
    async with running(store, collector) as actor:
        reply = actor.ask(request("x"))
        await until(lambda: store.asked, 5)
        await _sweeps(collector)  # during the pull
        store.gate.set()
        await reply.future
        await _sweeps(collector)  # during the creation of the container
        assert collector.removing == []
        assert {"x"} in collector.busy
        actor.leave(reply)
        await until(lambda: collector.removing == ["x"], 5)


async def test_two_starts_hold_an_image_until_both_have_ended() -> None:
    store, collector = Store(), Collector("x")
    store.gate.set()
    async with running(store, collector) as actor:
        collector.names = ()
        one, two = actor.ask(request("x")), actor.ask(request("x"))
        await asyncio.gather(one.future, two.future)
        collector.names = ("x",)
        actor.leave(one)
        await _sweeps(collector)
        assert collector.removing == []
        actor.leave(two)
        await until(lambda: collector.removing, 5)


async def test_a_start_waits_for_the_end_of_a_removal() -> None:
    store, collector = Store(), Collector("x")
    store.gate.set()
    async with running(store, collector) as actor:
        await until(lambda: collector.removing, 5)
        reply, archive = actor.ask(request("x")), Archive(root="/a", path="b")
        loading = actor.ask(request("y", archive=archive))
        assert (await actor.ask(request("z")).future).name == "z"
        assert [wanted.name for wanted in store.asked] == ["z"]
        collector.names = ()
        collector.gate.set()
        await asyncio.gather(reply.future, loading.future)
        assert {wanted.name for wanted in store.asked} == {"x", "y", "z"}


async def test_who_leaves_while_a_removal_lasts_is_not_pulled_for() -> None:
    store, collector = Store(), Collector("x")
    async with running(store, collector) as actor:
        await until(lambda: collector.removing, 5)
        actor.leave(actor.ask(request("x")))
        collector.names = ()
        collector.gate.set()
        await _sweeps(collector)
        assert store.asked == []


async def test_nothing_is_removed_while_an_archive_is_loaded() -> None:
    store, collector = Store(), Collector()
    store.result = ready("loaded/x@sha256:0")
    async with running(store, collector) as actor:
        reply = actor.ask(request("x", archive=Archive(root="/a", path="b")))
        await until(lambda: store.asked, 5)
        collector.names = ("loaded/x@sha256:0",)
        await _sweeps(collector)
        store.gate.set()
        await reply.future
        await _sweeps(collector)
        assert collector.removing == []
        actor.leave(reply)
        await until(lambda: collector.removing, 5)


async def test_a_retired_actor_collects_nothing_more() -> None:
    store, collector = Store(), Collector()
    store.gate.set()
    async with running(store, collector) as actor:
        await _sweeps(collector)
        tell(actor.ref, Retire())
        assert (await actor.ask(request("y")).future).name == "y"
        collector.names, seen = ("x",), collector.sweeps
        assert (await actor.ask(request("z")).future).name == "z"
        assert collector.removing == []
        assert collector.sweeps == seen


async def _sweeps(collector: Collector) -> None:
    """Waits for two whole sweeps."""
    seen = collector.sweeps
    await until(lambda: collector.sweeps >= seen + 2, 5)
