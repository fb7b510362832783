"""Calls to containerd from the puller, a process with threads and without an event loop."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from containerd.api import deadlines, methods
from containerd.api.calls import CHANNEL_OPTIONS, headers
from containerd.api.errors import driver_errors
from containerd.api.methods import Method, Request, Response
from containerd.watchdog import waiting
from proto.errors import Code, DriverError

CALL_S = 30.0
"""Time limit of a quick call of the puller."""


class SyncCalls:
    """A channel for blocking calls; a lease protects all objects that the calls create.

    Threads may share an instance. The watchdog knows each call while the call waits.
    """

    def __init__(self, address: str, namespace: str, lease: str) -> None:
        self.address = address
        self.lease = lease
        self._headers = headers(namespace, lease)
        self._channel = grpc.insecure_channel(f"unix:{address}", CHANNEL_OPTIONS)

    def __call__(
        self,
        method: Method[Request, Response],
        request: Request,
        action: str,
        timeout_s: float = CALL_S,
    ) -> Response:
        """Makes a unary call, and blocks until containerd answers.

        Args:
            method: from `containerd.api.methods`.
            request: the message.
            action: the request in words; completes the sentence "containerd cannot …".
            timeout_s: time limit.

        Raises:
            DriverError: see `errors.as_driver_error`.
        """
        with self._waiting(action):
            return self._unary(method, request, action, timeout_s)

    def _unary(
        self, method: Method[Request, Response], request: Request, action: str, timeout_s: float
    ) -> Response:
        stub = self._channel.unary_unary(
            method.path, request_serializer=method.serialize, response_deserializer=method.parse
        )
        with driver_errors(method.path, action, self.address):
            response: Response = stub(request, timeout=timeout_s, metadata=self._headers)
        return response

    def stream(
        self,
        method: Method[Request, Response],
        requests: Any,
        action: str,
        *,
        many_requests: bool = False,
    ) -> Generator[Response]:
        """Yields the messages of a streaming method. Closing the generator cancels the call.

        The call has no time limit: the watchdog ends the puller when no message comes for too long.

        Args:
            method: from `containerd.api.methods`; containerd answers with a stream.
            requests: the message; an iterator of messages with `many_requests`.
            action: the request in words; completes the sentence "containerd cannot …".
            many_requests: True for a method that reads a stream of requests.

        Raises:
            DriverError: while iterating; see `errors.as_driver_error`.
        """
        kind = self._channel.stream_stream if many_requests else self._channel.unary_stream
        call: Any = kind(
            method.path, request_serializer=method.serialize, response_deserializer=method.parse
        )(requests, metadata=self._headers)
        try:
            while True:
                with driver_errors(method.path, action, self.address), self._waiting(action):
                    message: Response | None = next(call, None)
                if message is None:
                    return
                yield message
        finally:
            call.cancel()

    def _waiting(self, action: str) -> AbstractContextManager[None]:
        brief = "containerd takes requests and does not answer"
        waiting_for = f"containerd at {self.address} to {action}"
        return waiting(brief, waiting_for, deadlines.ADVICE, self._is_alive)

    def _is_alive(self) -> bool:
        """Asks for containerd's version. Returns False only if no answer comes in time."""
        try:
            self._unary(methods.VERSION, Empty(), "return its version", deadlines.PROBE_S)
        except DriverError as error:
            return error.code is not Code.TIMEOUT
        return True

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()
