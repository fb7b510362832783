"""The undo steps of a start: their order, and failures among the steps."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

import pytest

from actors.lifecycle.undo import Undo, to_its_end
from actors.step_log import StepLog
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.api.client import Containerd


class _Answering:
    """A containerd which answers, as far as the undo asks."""

    async def answers(self) -> bool:
        return True


@pytest.fixture
def undo() -> Undo:
    log = StepLog(logging.getLogger("test"), "a test", container_id="c")
    return Undo(cast("Containerd", _Answering()), log)


async def test_steps_run_in_reverse_order_and_a_failure_hides_no_other_step(undo: Undo) -> None:
    done: list[str] = []

    async def remove(name: str) -> None:
        done.append(name)
        if name == "container":
            raise DriverError("busy", code=Code.PRECONDITION)

    for name in ("lease", "container", "task"):
        undo.later(name, remove, name)
    await undo.run(DriverError("no luck"))
    assert done == ["task", "container", "lease"]
    assert undo.left == ["container"]


@pytest.mark.parametrize(
    ("code", "undone"),
    [(None, True), (Code.TIMEOUT, True), (Code.UNAVAILABLE, True), (Code.ALREADY_EXISTS, False)],
)
async def test_an_object_is_undone_unless_it_existed_before(
    undo: Undo, code: Code | None, *, undone: bool
) -> None:
    removed: list[str] = []

    async def create() -> str:
        if code is not None:
            raise DriverError("no answer", code=code)
        return "created"

    async def remove(name: str) -> None:
        removed.append(name)

    if code is None:
        assert await undo.create(create(), "snapshot", remove, "s") == "created"
    else:
        with pytest.raises(DriverError, match="no answer"):
            await undo.create(create(), "snapshot", remove, "s")
    await undo.run(DriverError("no luck"))
    assert removed == (["s"] if undone else [])


async def test_a_cancelled_start_waits_for_its_undo(undo: Undo) -> None:
    begun, proceed, removed = asyncio.Event(), asyncio.Event(), []

    async def remove() -> None:
        begun.set()
        await proceed.wait()
        removed.append("lease")

    undo.later("lease", remove)
    starting = asyncio.create_task(to_its_end(undo.run(DriverError("no luck"))))
    await begun.wait()
    starting.cancel()
    await asyncio.sleep(0)
    assert not starting.done()
    proceed.set()
    await starting
    assert removed == ["lease"]
