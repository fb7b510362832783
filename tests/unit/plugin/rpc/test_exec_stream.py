"""The wire side of an exec: opening, heartbeats, end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from actors.model.nomad import ExecInput, ExecOutput, ExitResult
from plugin.rpc import exec_stream
from proto.errors import Code, DriverError
from proto.nomad import driver_pb2 as wire
from tests.support.waiting import slowed

Request = wire.ExecTaskStreamingRequest
_HEARTBEAT = Request()
_DEADLINE_S = 10


async def _then_silence(*messages: Request) -> AsyncIterator[Request]:
    for message in messages:
        yield message
    await asyncio.Event().wait()


async def _until_cancelled(log: list[str]) -> AsyncGenerator[ExecOutput, None]:
    try:
        yield ExecOutput(stdout=b"running")
        await asyncio.Event().wait()
    finally:
        log.append("closed")


async def _session(client: exec_stream.ExecClient, log: list[str]) -> None:
    async def read() -> None:
        log.extend([str(item.stdin) async for item in client.inputs()])

    reader = asyncio.create_task(read())
    try:
        async for answer in exec_stream.answers(_until_cancelled(log), client.gone):
            log.append(str(answer.stdout.data))  # noqa: PERF401 - others read it meanwhile
    finally:
        reader.cancel()


async def test_heartbeats_that_stop_close_the_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exec_stream, "HEARTBEAT_LIMIT_S", 0.01)
    log: list[str] = []
    with pytest.raises(DriverError, match="heartbeats have stopped") as gone:
        client = exec_stream.ExecClient(_then_silence(_HEARTBEAT))
        await asyncio.wait_for(_session(client, log), slowed(_DEADLINE_S))
    assert gone.value.code is Code.CANCELLED
    assert "closed" in log


async def test_a_client_that_never_sent_heartbeats_may_be_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exec_stream, "HEARTBEAT_LIMIT_S", 0.0)
    client = exec_stream.ExecClient(_then_silence(Request(stdin={"data": b"x"})))
    inputs = client.inputs()
    assert await anext(inputs) == ExecInput(stdin=b"x")
    waiting = asyncio.create_task(anext(inputs, None))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    assert not client.gone.is_set()
    waiting.cancel()


async def test_the_end_of_the_requests_is_no_end_of_the_client() -> None:
    async def requests() -> AsyncIterator[Request]:
        yield _HEARTBEAT
        yield Request(stdin={"close": True})

    client = exec_stream.ExecClient(requests())
    assert [item async for item in client.inputs()] == [ExecInput(stdin_close=True)]
    assert not client.gone.is_set()


async def test_cancelling_the_answers_closes_the_session() -> None:
    log: list[str] = []
    client = exec_stream.ExecClient(_then_silence())
    session = asyncio.create_task(_session(client, log))
    while not log:
        await asyncio.sleep(0)
    session.cancel()
    with pytest.raises(asyncio.CancelledError):
        await session
    assert log == ["b'running'", "closed"]


async def test_nothing_comes_after_the_exit_and_the_session_is_closed() -> None:
    log: list[str] = []

    async def outputs() -> AsyncGenerator[ExecOutput, None]:
        try:
            yield ExecOutput()
            yield ExecOutput(stdout=b"a")
            yield ExecOutput(exit=ExitResult(exit_code=3))
            yield ExecOutput(stdout=b"never")
        finally:
            log.append("closed")

    answers = exec_stream.answers(outputs(), asyncio.Event())
    first, last = [answer async for answer in answers]
    assert first.stdout.data == b"a"
    assert (last.exited, last.result.exit_code) == (True, 3)
    assert log == ["closed"]
