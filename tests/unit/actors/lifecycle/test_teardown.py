"""The end of a worker during its fork."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from actors.lifecycle import teardown
from proto.errors import Code, DriverError
from workers import protocol

if TYPE_CHECKING:
    from actors.processes.worker_link import WorkerLink


class _Link:
    """A connection which keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.closed = False

    async def request(self, op: str, **_: object) -> dict[str, object]:
        self.requests.append(op)
        return {}

    async def close(self) -> None:
        self.closed = True


async def test_the_undo_of_a_fork_waits_for_the_worker_and_ends_it() -> None:
    forking: asyncio.Future[WorkerLink] = asyncio.get_running_loop().create_future()
    ending = asyncio.create_task(teardown.end_forked(forking))
    await asyncio.sleep(0)
    assert not ending.done()
    link = _Link()
    forking.set_result(cast("WorkerLink", link))
    await ending
    assert link.requests == [protocol.END]
    assert link.closed


async def test_a_fork_that_failed_has_no_worker_to_end() -> None:
    forking: asyncio.Future[WorkerLink] = asyncio.get_running_loop().create_future()
    forking.set_exception(DriverError("no launcher", code=Code.UNAVAILABLE))
    await teardown.end_forked(forking)


async def test_a_launcher_that_does_not_answer_delays_the_undo_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(teardown, "_FORK_WAIT_S", 0.01)
    forking: asyncio.Future[WorkerLink] = asyncio.get_running_loop().create_future()
    await teardown.end_forked(forking)
    assert forking.cancelled()
