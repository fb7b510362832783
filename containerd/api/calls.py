"""Calls to containerd from an event loop: one channel, with a deadline for each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.empty_pb2 import Empty

from containerd.api import deadlines, methods
from containerd.api.errors import driver_errors
from containerd.api.methods import Method, Request, Response

T = TypeVar("T")
CALL_S = 10.0
"""Time limit of a quick call. A call with a longer limit has a liveness probe, see `deadlines`."""
LIST_S = 30.0
"""Time limit of a list that grows with the number of containers."""
RUNTIME_S = 60.0
"""Time limit of a runtime: creating or starting a container may wait for disk, cgroups or a VM."""

# containerd restarts within a second. gRPC's default back-off would wait up to two minutes.
CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    # An error is a header with the job's own words, and may be longer than gRPC's usual 8 KiB.
    ("grpc.max_metadata_size", 1024 * 1024),
    ("grpc.absolute_max_metadata_size", 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Time limit of connecting: a busy containerd accepts late.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


def headers(namespace: str, lease: str = "") -> tuple[tuple[str, str], ...]:
    """Returns the headers of a call: containerd's namespace, and the lease of created objects."""
    pairs = (("containerd-namespace", namespace),)
    return (*pairs, ("containerd-lease", lease)) if lease else pairs


class AsyncCalls:
    """A channel that connects at the first call, and again after a restart of containerd."""

    def __init__(self, address: str, namespace: str) -> None:
        self.address = address
        self.namespace = namespace
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[str, Callable[..., Any]] = {}

    async def __call__(
        self,
        method: Method[Request, Response],
        request: Request,
        action: str,
        *,
        timeout_s: float | None,
        lease: str = "",
    ) -> Response:
        """Makes a unary call. Cancelling the coroutine cancels the call in containerd.

        Args:
            method: from `containerd.api.methods`.
            request: the message.
            action: the request in words; completes the sentence "containerd cannot …".
            timeout_s: time limit; None for none. A limit of `deadlines.within` can shorten it.
            lease: id of the lease that protects the objects of the call; empty for none.

        Raises:
            DriverError: see `errors.as_driver_error`; TIMEOUT when containerd does not answer a
                liveness probe either.
        """
        timeout_s = deadlines.shortened(timeout_s)
        call = self._unary(method, request, action, timeout_s, lease)
        if timeout_s is not None and timeout_s <= CALL_S:
            return await call
        return await deadlines.probed(call, self._probe, action)

    async def _unary(
        self,
        method: Method[Request, Response],
        request: Request,
        action: str,
        timeout_s: float | None,
        lease: str = "",
    ) -> Response:
        stub = self._stubs.get(method.path) or self._stub(method)
        with driver_errors(method.path, action, self.address):
            response: Response = await stub(
                request, timeout=timeout_s, metadata=headers(self.namespace, lease)
            )
        return response

    async def _probe(self) -> None:
        await self._unary(methods.VERSION, Empty(), "return its version", deadlines.PROBE_S)

    async def collect(
        self,
        method: Method[Request, Response],
        request: Request,
        action: str,
        timeout_s: float,
        read: Callable[[Response], T],
    ) -> list[T]:
        """Returns all messages of a server stream. Cancelling the coroutine ends the stream.

        Args:
            method: from `containerd.api.methods`; containerd answers with a stream.
            request: the message.
            action: the request in words; completes the sentence "containerd cannot …".
            timeout_s: time limit of the whole stream. A limit of `deadlines.within` can shorten it.
            read: converts a message; the message is dropped then.

        Raises:
            DriverError: see `errors.as_driver_error`; messages before the failure are dropped.
        """
        timeout_s = deadlines.shortened(timeout_s) or timeout_s
        call = self._open().unary_stream(
            method.path, request_serializer=method.serialize, response_deserializer=method.parse
        )(request, timeout=timeout_s, metadata=headers(self.namespace))
        with driver_errors(method.path, action, self.address):
            return [read(message) async for message in call]

    async def close(self) -> None:
        """Closes the channel; a later call opens a new channel."""
        channel, self._channel = self._channel, None
        self._stubs.clear()
        if channel is not None:
            await channel.close(None)

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(f"unix:{self.address}", CHANNEL_OPTIONS)
        return self._channel

    def _stub(self, method: Method[Any, Any]) -> Callable[..., Any]:
        stub: Callable[..., Any] = self._open().unary_unary(
            method.path, request_serializer=method.serialize, response_deserializer=method.parse
        )
        self._stubs[method.path] = stub
        return stub
