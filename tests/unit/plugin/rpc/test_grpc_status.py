"""Errors as gRPC statuses: texts, codes, details, and bytes which no header may have."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.rpc import grpc_status
from proto.errors import DriverError
from proto.nomad import rpc_status_pb2, shared_structs_pb2


class _AbortedError(Exception):
    pass


class _Context:
    """A handler's context of a call; `abort` raises, as gRPC's own context does."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None
        self.text = ""
        self.trailers: dict[str, bytes] = {}

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.trailers = dict(metadata)

    async def abort(self, code: grpc.StatusCode, text: str) -> None:
        self.code, self.text = code, text
        raise _AbortedError


def _aborted(error: Exception) -> _Context:
    context: Any = _Context()

    async def method(_: object) -> object:
        raise error

    with pytest.raises(_AbortedError):
        asyncio.run(_await(grpc_status.unary(method), context))
    found: _Context = context
    return found


async def _await(handler: Any, context: Any) -> Any:
    return await handler(None, context)


def test_a_driver_error_is_unknown_with_its_words() -> None:
    context = _aborted(DriverError("no", details="because", resolution="do this"))
    assert context.code is grpc.StatusCode.UNKNOWN
    assert context.text == "no: because (do this)"
    assert context.trailers == {}


def test_a_recoverable_error_has_nomads_detail() -> None:
    context = _aborted(DriverError("later", recoverable=True))
    assert context.code is grpc.StatusCode.FAILED_PRECONDITION
    status = rpc_status_pb2.Status.FromString(context.trailers["grpc-status-details-bin"])
    detail = shared_structs_pb2.RecoverableError()
    assert status.details[0].Unpack(detail)
    assert detail.recoverable


def test_an_unexpected_error_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        context = _aborted(KeyError("defect"))
    assert context.code is grpc.StatusCode.UNKNOWN
    assert context.text == "the containerd driver failed inside method: KeyError: 'defect'"
    (record,) = caplog.records
    assert record.exc_info is not None
    assert vars(record)["rpc"] == "method"


@given(st.text(st.characters(exclude_categories=[]), max_size=4000), st.booleans())
def test_any_text_fits_into_a_header(text: str, recoverable: bool) -> None:
    context = _aborted(DriverError(text, recoverable=recoverable))
    assert context.text.isprintable()
    # gRPC's C core refuses headers beyond 8 KiB, both forms of the text counted.
    details = context.trailers.get("grpc-status-details-bin", b"")
    assert len(quote(context.text)) + len(details) * 4 / 3 < 8000


def test_a_long_text_is_cut_visibly() -> None:
    assert _aborted(DriverError("x" * 5000)).text.endswith("…")
    assert _aborted(DriverError("x" * 2900)).text == "x" * 2900


async def _items(fails: bool) -> AsyncGenerator[int, None]:
    yield 1
    if fails:
        raise DriverError("broken off")


async def test_streams_pass_their_items_and_then_their_error() -> None:
    async def collect(handler: Any, context: Any, request: object) -> list[int]:
        return [item async for item in handler(request, context)]

    async def requests() -> AsyncIterator[int]:
        yield 0

    def one(_: object) -> AsyncGenerator[int, None]:
        return _items(fails=False)

    def other(_: object) -> AsyncGenerator[int, None]:
        return _items(fails=True)

    for wrap in (grpc_status.server_stream, grpc_status.both_streams):
        wrapped: Any = wrap
        context = _Context()
        assert await collect(wrapped(one), context, requests()) == [1]
        with pytest.raises(_AbortedError):
            await collect(wrapped(other), context, requests())
        assert context.text == "broken off"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        RuntimeError("can't start new thread"),
    ],
)
def test_what_ran_out_is_no_defect_and_may_be_tried_again(error: Exception) -> None:
    context = _aborted(error)
    assert context.code is grpc.StatusCode.FAILED_PRECONDITION
    assert context.text.startswith("the containerd driver lacks resources for method: ")
    assert "raise the" in context.text
