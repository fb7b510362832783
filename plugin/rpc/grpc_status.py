"""The one place where errors become gRPC statuses that Nomad understands."""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage

from plugin.sanitize import plain
from proto.errors import DriverError
from proto.exhaustion import exhausted, remedy
from proto.nomad import rpc_status_pb2, shared_structs_pb2

Request = TypeVar("Request")
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]

_log = logging.getLogger(__name__)
# Python's own words, and all that it says.
_NO_THREAD = "can't start new thread"
_DETAILS = "grpc-status-details-bin"
# An error text travels in an HTTP/2 header, percent-encoded, and a recoverable one once more in
# base64. gRPC's C core refuses headers from 8 KiB on, Go's takes 16 MiB.
_MAX_HEADER_BYTES = 3000
# A close frame holds 123 bytes, of which gRPC's words in Go take some. In a chain of errors the
# last words are the cause.
_CLOSE_FRAME_BYTES = 123 - len("rpc error: code = Unknown desc = ")
_HEAD_BYTES = 30


def unary(
    method: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request, Context], Awaitable[Response]]:
    """A handler of one request and one answer."""

    @functools.wraps(method)
    async def handler(request: Request, context: Context) -> Response:
        try:
            return await method(request)
        except Exception as error:
            await _abort(context, error, method.__name__)
            raise

    return handler


def server_stream(
    method: Callable[[Request], AsyncGenerator[Response, None]],
) -> Callable[[Request, Context], AsyncGenerator[Response, None]]:
    """A handler that answers with a stream; cancelling the call closes the generator."""

    @functools.wraps(method)
    async def handler(request: Request, context: Context) -> AsyncGenerator[Response, None]:
        try:
            async with aclosing(method(request)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:  # noqa: BLE001
            await _abort(context, error, method.__name__)

    return handler


def both_streams(
    method: Callable[[AsyncIterator[Request]], AsyncGenerator[Response, None]],
) -> Callable[[AsyncIterator[Request], Context], AsyncGenerator[Response, None]]:
    """A handler of two streams, whose error is as short as Nomad can pass on."""

    @functools.wraps(method)
    async def handler(
        requests: AsyncIterator[Request], context: Context
    ) -> AsyncGenerator[Response, None]:
        try:
            async with aclosing(method(requests)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:  # noqa: BLE001
            await _abort(context, _for_a_close_frame(error), method.__name__)

    return handler


async def _abort(context: Context, error: Exception, name: str) -> None:
    error = _named(error, name)
    if isinstance(error, DriverError):
        text = _header_safe(str(error))
    else:
        _log.error("unexpected failure", exc_info=error, extra={"rpc": name})
        text = _header_safe(
            f"the containerd driver failed inside {name}: {type(error).__name__}: {error}"
        )
    if isinstance(error, DriverError) and error.recoverable:
        status = grpc.StatusCode.FAILED_PRECONDITION
        context.set_trailing_metadata(((_DETAILS, recoverable_details(text)),))
        await context.abort(status, text)
    await context.abort(grpc.StatusCode.UNKNOWN, text)


def _for_a_close_frame(error: Exception) -> Exception:
    """An error that the user of `nomad alloc exec` gets to read.

    Nomad puts its text into a websocket's close frame; of one that is too long the user reads
    "unexpected EOF". What is left out is in the log.
    """
    if not isinstance(error, DriverError):
        return error
    text = plain(
        " ".join((f"{error.brief}: {error.details}" if error.details else error.brief).split())
    )
    data = text.encode()
    if len(data) > _CLOSE_FRAME_BYTES:
        _log.info("an error is cut short", extra={"rpc": "exec", "why": str(error)})
        head, tail = data[:_HEAD_BYTES], data[_HEAD_BYTES + 3 - _CLOSE_FRAME_BYTES :]
        text = f"{head.decode(errors='ignore')}…{tail.decode(errors='ignore')}"
    return DriverError(text, code=error.code)


def _named(error: Exception, name: str) -> Exception:
    """What ran out is no defect of ours, wherever it was missed first, and may be there again."""
    if isinstance(error, OSError) and remedy(error):
        return exhausted(f"the containerd driver lacks what {name} needs", error)
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return exhausted(
            f"the containerd driver lacks what {name} needs", OSError(errno.EAGAIN, _NO_THREAD)
        )
    return error


def recoverable_details(text: str) -> bytes:
    """google.rpc.Status with RecoverableError{true}: Nomad then applies the restart policy."""
    detail = AnyMessage()
    detail.Pack(shared_structs_pb2.RecoverableError(recoverable=True))
    status = rpc_status_pb2.Status(
        code=grpc.StatusCode.FAILED_PRECONDITION.value[0], message=text, details=[detail]
    )
    return status.SerializeToString()


def _header_safe(text: str) -> str:
    """One line, cut where its percent-encoded form gets too long for a header."""
    flat = plain(" ".join(text.split()))
    room = _MAX_HEADER_BYTES
    for index, character in enumerate(flat):
        room -= 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())
        if room < 0:
            return f"{flat[:index]}…"
    return flat
