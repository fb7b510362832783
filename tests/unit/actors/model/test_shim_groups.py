"""Tests of the choice of a shim: containers of an allocation with the same runtime share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from actors.model.shim_groups import ShimGroups
from containerd.runtimes import Runtime
from proto.errors import Code, DriverError
from tests.support.waiting import until

RUNC, CRUN = Runtime(name="io.containerd.runc.v2"), Runtime(name="x", binary_name="crun")


def always(_id: str, _pid: int) -> bool:
    return True


class Starts:
    """Starts and removals of containers of an allocation."""

    def __init__(self, lives: Callable[[str, int], bool] = always) -> None:
        self.groups = ShimGroups()
        self.lives = lives

    async def start(
        self,
        container: str,
        *,
        alloc: str = "alloc",
        runtime: Runtime = RUNC,
        fails: BaseException | None = None,
    ) -> str:
        """Starts a container and returns the container's group."""
        async with self.groups.joining(alloc, runtime, container, self.lives) as member:
            group = member.group
            if fails is not None:
                raise fails
        return group

    async def remove(self, container: str) -> None:
        async with self.groups.leaving("alloc", container):
            pass


async def test_a_container_joins_the_group_of_a_living_one() -> None:
    starts = Starts()
    assert [await starts.start(name) for name in "abc"] == ["a", "a", "a"]
    await starts.remove("a")
    assert await starts.start("d") == "a"
    assert await starts.start("a") == "a"


async def test_other_allocations_and_other_runtimes_have_groups_of_their_own() -> None:
    starts = Starts()
    await starts.start("a")
    assert await starts.start("b", alloc="other") == "b"
    assert await starts.start("c", runtime=CRUN) == "c"
    assert await starts.start("d", runtime=CRUN) == "c"


async def test_a_group_ends_with_its_last_container() -> None:
    starts = Starts()
    await starts.start("a")
    await starts.start("b")
    await starts.remove("a")
    await starts.remove("b")
    assert await starts.start("c") == "c"


async def test_a_dead_shim_is_not_joined() -> None:
    dead = {"a"}
    starts = Starts(lambda container, _pid: container not in dead)
    await starts.start("a")
    assert await starts.start("b") == "b"


async def test_a_container_does_not_join_itself() -> None:
    starts = Starts()
    await starts.start("a")
    await starts.start("b")
    await starts.remove("a")
    assert await starts.start("b") == "b"


@pytest.mark.parametrize(
    ("failure", "joined"),
    [
        (DriverError("no such program", code=Code.INVALID), "a"),
        (DriverError("no answer", code=Code.TIMEOUT), "d"),
        (DriverError("containerd is away", code=Code.UNAVAILABLE), "d"),
        (asyncio.CancelledError(), "d"),
    ],
    ids=["refused", "silent", "away", "stopped"],
)
async def test_a_shim_is_joined_again_only_after_a_clear_answer(
    failure: BaseException, joined: str
) -> None:
    starts = Starts()
    await starts.start("a")
    with pytest.raises(type(failure)):
        await starts.start("b", fails=failure)
    assert await starts.start("d") == joined


async def test_the_group_of_a_first_start_that_failed_is_not_joined() -> None:
    starts = Starts()
    with pytest.raises(DriverError):
        await starts.start("a", fails=DriverError("refused"))
    assert await starts.start("b") == "b"


async def test_create_and_delete_of_an_allocation_wait_for_each_other() -> None:
    starts, order, go = Starts(), list[str](), asyncio.Event()
    await starts.start("a")

    async def delete() -> None:
        async with starts.groups.leaving("alloc", "a"):
            order.append("delete begins")
            await go.wait()
            order.append("delete ends")

    async def create() -> None:
        order.append(await starts.start("b"))

    deleting = asyncio.create_task(delete())
    await asyncio.sleep(0)
    creating = asyncio.create_task(create())
    other = await starts.start("z", alloc="other")
    go.set()
    await asyncio.gather(deleting, creating)
    assert (order, other) == (["delete begins", "delete ends", "b"], "z")


async def test_the_first_create_of_an_allocation_goes_alone_and_later_ones_run_together() -> None:
    starts, begun, go = Starts(), list[str](), asyncio.Event()

    async def create(container: str) -> str:
        async with starts.groups.joining("alloc", RUNC, container, always) as member:
            begun.append(container)
            await go.wait()
        return member.group

    first = asyncio.create_task(create("a"))
    others = [asyncio.create_task(create(name)) for name in "bc"]
    await asyncio.sleep(0)
    assert begun == ["a"]
    go.set()
    assert await first == "a"
    go.clear()
    await until(lambda: begun == ["a", "b", "c"], 10)
    go.set()
    assert await asyncio.gather(*others) == ["a", "a"]


async def test_a_waiting_create_begins_a_group_after_the_failure_of_the_first() -> None:
    starts = Starts()
    failing = starts.start("a", fails=DriverError("refused"))
    outcomes = await asyncio.gather(failing, starts.start("b"), return_exceptions=True)
    assert isinstance(outcomes[0], DriverError)
    assert outcomes[1] == "b"


async def test_a_removal_that_fails_leaves_no_group_to_join() -> None:
    starts = Starts()
    await starts.start("a")
    with pytest.raises(DriverError):
        async with starts.groups.leaving("", "a"):
            raise DriverError("containerd is away", code=Code.UNAVAILABLE)
    assert await starts.start("b") == "b"


async def test_nothing_is_kept_of_an_allocation_that_is_gone() -> None:
    starts = Starts()
    await starts.start("a")
    await starts.remove("a")
    assert not vars(starts.groups)["_of"]
    assert not list(vars(starts.groups)["_allocs"])
