"""gRPC calls of the dev host to its plugin.

No other module of `plugin/host` knows gRPC's errors: a call that fails raises a `DriverError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from proto.errors import Code, DriverError

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
_CODES = {
    grpc.StatusCode.UNAVAILABLE: Code.UNAVAILABLE,
    grpc.StatusCode.CANCELLED: Code.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED: Code.TIMEOUT,
    grpc.StatusCode.UNIMPLEMENTED: Code.UNSUPPORTED,
}


class PluginCalls:
    """A connection to one plugin after the other. Every call raises DriverError if it fails."""

    def __init__(self) -> None:
        self._channel: grpc.aio.Channel | None = None

    @property
    def connected(self) -> bool:
        """True between `connect` and `close`."""
        return self._channel is not None

    def connect(self, address: str) -> None:
        """Connects to the plugin's socket; an answer may have any size."""
        self._channel = grpc.aio.insecure_channel(
            f"unix:{address}", [("grpc.max_receive_message_length", -1)]
        )

    async def close(self) -> None:
        """Closes the connection. Calls that wait for an answer fail."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)

    async def ask(
        self, path: str, request: Message, answer: type[A], timeout_s: float | None = None
    ) -> A:
        """Sends a request and returns the answer.

        Args:
            path: the method's path, such as `/plugin.GRPCController/Shutdown`.
            request: the request's message.
            answer: the type of the answer.
            timeout_s: seconds until the call fails with code TIMEOUT; None waits without end.
        """
        stub = self._open().unary_unary(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            response: A = await stub(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _refused(error) from None
        except asyncio.CancelledError:
            if _cancelled_by_caller():
                raise
            raise _connection_closed() from None
        return response

    def stream(self, path: str, request: Message, answer: type[A]) -> AsyncGenerator[A, None]:
        """Sends a request and yields the answers of the stream."""
        call = self._open().unary_stream(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )(request)
        return _answers(call)

    def exchange(
        self, path: str, requests: AsyncIterator[Q], request: type[Q], answer: type[A]
    ) -> AsyncGenerator[A, None]:
        """Sends the requests as they come and yields the answers of the stream."""
        call = self._open().stream_stream(
            path,
            request_serializer=request.SerializeToString,
            response_deserializer=answer.FromString,
        )(requests)
        return _answers(call)

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise DriverError("the plugin is not launched", code=Code.PRECONDITION)
        return self._channel


async def _answers(call: Any) -> AsyncGenerator[Any, None]:
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as error:
        raise _refused(error) from None
    except asyncio.CancelledError:
        if _cancelled_by_caller():
            raise
        raise _connection_closed() from None
    finally:
        call.cancel()


def _cancelled_by_caller() -> bool:
    """Returns False if gRPC cancelled the call because its channel was closed."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _connection_closed() -> DriverError:
    return DriverError("the connection to the plugin was closed", code=Code.CANCELLED)


def _refused(error: grpc.aio.AioRpcError) -> DriverError:
    status = error.code()
    # Nomad reads the recoverable flag from the details; FAILED_PRECONDITION stands for it here.
    recoverable = status is grpc.StatusCode.FAILED_PRECONDITION
    code = _CODES.get(status, Code.INTERNAL)
    return DriverError(str(error.details() or status.name), recoverable=recoverable, code=code)
