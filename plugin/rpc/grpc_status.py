"""Errors as gRPC statuses that Nomad understands; all handlers of RPCs convert errors here."""

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

from plugin.texts import plain
from proto.errors import DriverError
from proto.exhaustion import advice, exhausted
from proto.nomad import rpc_status_pb2, shared_structs_pb2

Request = TypeVar("Request")
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]

_log = logging.getLogger(__name__)
# Python's text; the exception has no other mark.
_NO_THREAD = "can't start new thread"
_DETAILS = "grpc-status-details-bin"
# An error text travels percent-encoded in an HTTP/2 header, the text of a recoverable error also in
# base64 in a second header. gRPC's C core refuses headers from 8 KiB on, Go's accepts 16 MiB.
_MAX_HEADER_BYTES = 3000
# A close frame holds 123 bytes, and begins with gRPC's words in Go. The end of a chain of errors
# names the cause.
_CLOSE_FRAME_BYTES = 123 - len("rpc error: code = Unknown desc = ")
_HEAD_BYTES = 30


def unary(
    method: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request, Context], Awaitable[Response]]:
    """Returns a handler of one request and one answer."""

    @functools.wraps(method)
    async def handler(request: Request, context: Context) -> Response:
        try:
            return await method(request)
        except Exception as error:
            await _abort(context, error, method.__name__)
            raise

    return handler


def last(
    method: Callable[[Request], Awaitable[Response]], leave: Callable[[], object]
) -> Callable[[Request, Context], Awaitable[Response]]:
    """Returns a handler of the last request: calls `leave` when the answer is sent."""
    answer = unary(method)

    async def handler(request: Request, context: Context) -> Response:
        # gRPC calls the callback after the transport has taken the answer.
        context.add_done_callback(lambda _: leave())  # type: ignore[arg-type] # the stub is no Protocol
        return await answer(request, context)

    return handler


def server_stream(
    method: Callable[[Request], AsyncGenerator[Response, None]],
) -> Callable[[Request, Context], AsyncGenerator[Response, None]]:
    """Returns a handler that answers with a stream; a cancelled call closes the generator."""

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
    """Returns a handler of two streams; its errors are short enough for Nomad to pass on."""

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
    """Returns the error with a text that fits into a websocket's close frame.

    Nomad sends the text to the user of `nomad alloc exec` in a close frame. With a longer text the
    user reads "unexpected EOF". The whole text is logged.
    """
    if not isinstance(error, DriverError):
        return error
    text = plain(
        " ".join((f"{error.brief}: {error.details}" if error.details else error.brief).split())
    )
    data = text.encode()
    if len(data) > _CLOSE_FRAME_BYTES:
        _log.info("error shortened for a close frame", extra={"rpc": "exec", "error": str(error)})
        head, tail = data[:_HEAD_BYTES], data[_HEAD_BYTES + 3 - _CLOSE_FRAME_BYTES :]
        text = f"{head.decode(errors='ignore')}…{tail.decode(errors='ignore')}"
    return DriverError(text, code=error.code)


def _named(error: Exception, name: str) -> Exception:
    """Returns a recoverable error for exhaustion that Python reported, else the error itself."""
    if isinstance(error, OSError) and advice(error):
        return exhausted(f"the containerd driver lacks resources for {name}", error)
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return exhausted(
            f"the containerd driver lacks resources for {name}", OSError(errno.EAGAIN, _NO_THREAD)
        )
    return error


def recoverable_details(text: str) -> bytes:
    """Returns a google.rpc.Status with RecoverableError{true}: Nomad applies the restart policy."""
    detail = AnyMessage()
    detail.Pack(shared_structs_pb2.RecoverableError(recoverable=True))
    status = rpc_status_pb2.Status(
        code=grpc.StatusCode.FAILED_PRECONDITION.value[0], message=text, details=[detail]
    )
    return status.SerializeToString()


def _header_safe(text: str) -> str:
    """Returns one line, cut where its percent-encoded form would be too long for a header."""
    flat = plain(" ".join(text.split()))
    room = _MAX_HEADER_BYTES
    for index, character in enumerate(flat):
        room -= 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())
        if room < 0:
            return f"{flat[:index]}…"
    return flat
