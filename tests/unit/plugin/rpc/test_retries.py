"""Calls retried until an answer, and streams opened again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from plugin.rpc import retries
from proto.errors import Code, DriverError


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "PAUSE_S", 0)
    monkeypatch.setattr(retries, "_RETRY_S", 0)


async def test_a_passing_failure_is_retried() -> None:
    failures = [
        DriverError("away", code=Code.UNAVAILABLE),
        ZeroDivisionError("a defect"),
        DriverError("ours", code=Code.INTERNAL),
    ]

    async def attempt() -> str:
        if failures:
            raise failures.pop()
        return "answer"

    assert await retries.retry_until_answered(attempt, "wait") == "answer"


@pytest.mark.parametrize("code", [Code.NOT_FOUND, Code.INVALID])
async def test_failures_that_no_retry_changes_are_raised(code: Code) -> None:
    async def attempt() -> None:
        raise DriverError("no", code=code)

    with pytest.raises(DriverError, match="no"):
        await retries.retry_until_answered(attempt, "wait")


async def test_a_stream_opens_again_after_its_end_and_after_a_failure() -> None:
    opened: list[int] = []

    async def stream() -> AsyncGenerator[int, None]:
        opened.append(len(opened))
        yield opened[-1]
        if opened[-1] == 1:
            raise ZeroDivisionError

    found: list[str] = []
    items = retries.reopen_forever(stream, str, "s", on_failure=lambda error: type(error).__name__)
    async with aclosing(items):
        async for item in items:
            found.append(item)
            if len(found) == 5:
                break
    assert found == ["0", "1", "ZeroDivisionError", "2", "3"]


async def test_an_item_that_cannot_be_converted_ends_no_stream() -> None:
    async def stream() -> AsyncGenerator[int, None]:
        yield 0
        yield 1

    items = retries.reopen_forever(stream, lambda number: 1 // number, "s")
    async with aclosing(items):
        waiting = asyncio.create_task(anext(items))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize("error", [None, DriverError("gone"), ZeroDivisionError()])
async def test_a_stream_until_closed_ends_without_an_error(
    error: Exception | None,
) -> None:
    async def stream() -> AsyncGenerator[int, None]:
        yield 1
        if error:
            raise error

    assert [item async for item in retries.until_closed(stream, str, "s")] == ["1"]


async def test_closing_a_stream_closes_what_it_reads() -> None:
    log: list[str] = []

    async def stream() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            log.append("closed")

    for make in (retries.reopen_forever, retries.until_closed):
        async with aclosing(make(stream, str, "s")) as items:
            await anext(items)
    assert log == ["closed", "closed"]
