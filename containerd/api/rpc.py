"""Calls to containerd: its methods, its metadata, and the only place that sees grpc.RpcError."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio
from google.protobuf.empty_pb2 import Empty

from containerd import watchdog
from containerd.api import deadlines, shortage_words
from proto.containerd import (
    containers_pb2,
    content_pb2,
    diff_pb2,
    images_pb2,
    introspection_pb2,
    leases_pb2,
    snapshots_pb2,
    tasks_pb2,
    version_pb2,
)
from proto.errors import Code, DriverError
from proto.exhaustion import remedy

CALL_S = 10.0
"""Most calls; one that gets more is attended to, see `silence`."""

Request = TypeVar("Request")
Response = TypeVar("Response")

# containerd restarts within a second; grpc's own back-off would sleep up to two minutes.
CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long connecting may take: a busy containerd accepts late.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """One RPC: its path and how its messages are read and written."""

    path: str
    serialize: Callable[[Request], bytes]
    parse: Callable[[bytes], Response]


def _method(
    service: str, name: str, request: type[Request], response: type[Response]
) -> Method[Request, Response]:
    return Method(
        f"/containerd.services.{service}/{name}",
        request.SerializeToString,  # type: ignore[attr-defined]
        response.FromString,  # type: ignore[attr-defined]
    )


_IMAGES = "images.v1.Images"
_CONTENT = "content.v1.Content"
_SNAPSHOTS = "snapshots.v1.Snapshots"
_CONTAINERS = "containers.v1.Containers"
_TASKS = "tasks.v1.Tasks"
_LEASES = "leases.v1.Leases"

VERSION = _method("version.v1.Version", "Version", Empty, version_pb2.VersionResponse)

PLUGINS = _method(
    "introspection.v1.Introspection",
    "Plugins",
    introspection_pb2.PluginsRequest,
    introspection_pb2.PluginsResponse,
)

IMAGE_GET = _method(_IMAGES, "Get", images_pb2.GetImageRequest, images_pb2.GetImageResponse)
IMAGE_LIST = _method(_IMAGES, "List", images_pb2.ListImagesRequest, images_pb2.ListImagesResponse)
IMAGE_CREATE = _method(
    _IMAGES, "Create", images_pb2.CreateImageRequest, images_pb2.CreateImageResponse
)
IMAGE_UPDATE = _method(
    _IMAGES, "Update", images_pb2.UpdateImageRequest, images_pb2.UpdateImageResponse
)
IMAGE_DELETE = _method(_IMAGES, "Delete", images_pb2.DeleteImageRequest, Empty)

CONTENT_UPDATE = _method(_CONTENT, "Update", content_pb2.UpdateRequest, content_pb2.UpdateResponse)
CONTENT_READ = _method(
    _CONTENT, "Read", content_pb2.ReadContentRequest, content_pb2.ReadContentResponse
)
CONTENT_WRITE = _method(
    _CONTENT, "Write", content_pb2.WriteContentRequest, content_pb2.WriteContentResponse
)
CONTENT_ABORT = _method(_CONTENT, "Abort", content_pb2.AbortRequest, Empty)

SNAPSHOT_PREPARE = _method(
    _SNAPSHOTS,
    "Prepare",
    snapshots_pb2.PrepareSnapshotRequest,
    snapshots_pb2.PrepareSnapshotResponse,
)
SNAPSHOT_COMMIT = _method(_SNAPSHOTS, "Commit", snapshots_pb2.CommitSnapshotRequest, Empty)
SNAPSHOT_REMOVE = _method(_SNAPSHOTS, "Remove", snapshots_pb2.RemoveSnapshotRequest, Empty)
SNAPSHOT_STAT = _method(
    _SNAPSHOTS, "Stat", snapshots_pb2.StatSnapshotRequest, snapshots_pb2.StatSnapshotResponse
)
SNAPSHOT_LIST = _method(
    _SNAPSHOTS, "List", snapshots_pb2.ListSnapshotsRequest, snapshots_pb2.ListSnapshotsResponse
)

DIFF_APPLY = _method("diff.v1.Diff", "Apply", diff_pb2.ApplyRequest, diff_pb2.ApplyResponse)

CONTAINER_GET = _method(
    _CONTAINERS, "Get", containers_pb2.GetContainerRequest, containers_pb2.GetContainerResponse
)
CONTAINER_LIST = _method(
    _CONTAINERS,
    "List",
    containers_pb2.ListContainersRequest,
    containers_pb2.ListContainersResponse,
)
CONTAINER_CREATE = _method(
    _CONTAINERS,
    "Create",
    containers_pb2.CreateContainerRequest,
    containers_pb2.CreateContainerResponse,
)
CONTAINER_DELETE = _method(_CONTAINERS, "Delete", containers_pb2.DeleteContainerRequest, Empty)

TASK_CREATE = _method(_TASKS, "Create", tasks_pb2.CreateTaskRequest, tasks_pb2.CreateTaskResponse)
TASK_START = _method(_TASKS, "Start", tasks_pb2.StartRequest, tasks_pb2.StartResponse)
TASK_DELETE = _method(_TASKS, "Delete", tasks_pb2.DeleteTaskRequest, tasks_pb2.DeleteResponse)
TASK_DELETE_PROCESS = _method(
    _TASKS, "DeleteProcess", tasks_pb2.DeleteProcessRequest, tasks_pb2.DeleteResponse
)
TASK_GET = _method(_TASKS, "Get", tasks_pb2.GetRequest, tasks_pb2.GetResponse)
TASK_KILL = _method(_TASKS, "Kill", tasks_pb2.KillRequest, Empty)
TASK_EXEC = _method(_TASKS, "Exec", tasks_pb2.ExecProcessRequest, Empty)
TASK_RESIZE = _method(_TASKS, "ResizePty", tasks_pb2.ResizePtyRequest, Empty)
TASK_CLOSE_IO = _method(_TASKS, "CloseIO", tasks_pb2.CloseIORequest, Empty)
TASK_WAIT = _method(_TASKS, "Wait", tasks_pb2.WaitRequest, tasks_pb2.WaitResponse)

LEASE_CREATE = _method(_LEASES, "Create", leases_pb2.CreateRequest, leases_pb2.CreateResponse)
LEASE_DELETE = _method(_LEASES, "Delete", leases_pb2.DeleteRequest, Empty)
LEASE_LIST = _method(_LEASES, "List", leases_pb2.ListRequest, leases_pb2.ListResponse)
LEASE_ADD = _method(_LEASES, "AddResource", leases_pb2.AddResourceRequest, Empty)
LEASE_RESOURCES = _method(
    _LEASES,
    "ListResources",
    leases_pb2.ListResourcesRequest,
    leases_pb2.ListResourcesResponse,
)


def metadata(namespace: str, lease: str = "") -> tuple[tuple[str, str], ...]:
    """Header that names containerd's namespace, and the lease that owns what the call makes."""
    headers = (("containerd-namespace", namespace),)
    return (*headers, ("containerd-lease", lease)) if lease else headers


_CODES: dict[grpc.StatusCode, tuple[Code, bool]] = {
    grpc.StatusCode.NOT_FOUND: (Code.NOT_FOUND, False),
    grpc.StatusCode.ALREADY_EXISTS: (Code.ALREADY_EXISTS, False),
    grpc.StatusCode.UNAVAILABLE: (Code.UNAVAILABLE, True),
    grpc.StatusCode.DEADLINE_EXCEEDED: (Code.TIMEOUT, True),
    # Not by us, who get no answer then: containerd cancels what it has as it stops.
    grpc.StatusCode.CANCELLED: (Code.UNAVAILABLE, True),
    grpc.StatusCode.FAILED_PRECONDITION: (Code.PRECONDITION, False),
    grpc.StatusCode.INVALID_ARGUMENT: (Code.INVALID, False),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (Code.EXHAUSTED, True),
    grpc.StatusCode.PERMISSION_DENIED: (Code.DENIED, False),
    grpc.StatusCode.UNIMPLEMENTED: (Code.UNSUPPORTED, False),
    grpc.StatusCode.DATA_LOSS: (Code.CORRUPT, False),
}
_DETAILS_LIMIT = 2000
# What this process may lack, told in the kernel's words that gRPC passes on. The first are longer.
_OWN_LACKS = (errno.ENFILE, errno.EMFILE, errno.ENOMEM)
# In the words of runc and crun.
_NO_PROGRAM = re.compile(r'container process(?: caused)?: exec: "|executable file `')
_REFUSED = "Permission denied"
_NOT_ROOT = "the socket is root's: run it with sudo"
_START_IT = "start it (systemctl start containerd), or set containerd_address"


def as_driver_error(error: grpc.RpcError, what: str, address: str) -> DriverError:
    """Returns what a failed call means.

    Args:
        error: of the sync or the async API.
        what: the request in words, with its id, after "containerd cannot ".
        address: containerd's socket, for the case that nobody answers.
    """
    status = error.code()
    text = str(error.details() or "")[:_DETAILS_LIMIT]
    code, recoverable = _CODES.get(status, (Code.INTERNAL, False))
    lack = next((number for number in _OWN_LACKS if os.strerror(number) in text), 0)
    if code is Code.UNAVAILABLE and lack and _nobody_there(text):
        return DriverError(
            f"containerd at {address} cannot be asked to {what}",
            details=os.strerror(lack),
            resolution=remedy(OSError(lack, os.strerror(lack))),
            recoverable=True,
            code=code,
        )
    if status is grpc.StatusCode.CANCELLED or (code is Code.UNAVAILABLE and _nobody_there(text)):
        why = text.rpartition("error: ")[2]
        return DriverError(
            f"containerd does not answer at {address}",
            details=f"asked to {what}; {why}",
            resolution=_NOT_ROOT if _REFUSED in why else _START_IT,
            recoverable=True,
            code=code,
        )
    resolution = ""
    if code is Code.TIMEOUT:
        text = f"at {address} it took the request and did not answer in time"
        resolution = deadlines.ADVICE
    if code is Code.INTERNAL and text.endswith("already exists"):
        code = Code.ALREADY_EXISTS  # containerd 1.4, of a task
    if code is Code.INTERNAL and "ttrpc: closed" in text:
        code, recoverable = Code.UNAVAILABLE, True
    if _NO_PROGRAM.search(text):
        resolution = "name a program that the image has and its user may run"
    if lacks := shortage_words.advice(text):
        code, recoverable, resolution = Code.EXHAUSTED, True, lacks
    return DriverError(
        f"containerd cannot {what}",
        details=text,
        resolution=resolution,
        recoverable=recoverable,
        code=code,
    )


def _nobody_there(text: str) -> bool:
    """Returns whether gRPC itself found nobody, in one of its many wordings.

    containerd's own errors of this kind, of a shim that went for instance, end with the word.
    """
    return not text.endswith("unavailable")


class AsyncCalls:
    """Unary calls on one channel that connects when first used and again after a restart."""

    def __init__(self, address: str, namespace: str) -> None:
        self.address = address
        self.namespace = namespace
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[str, Callable[..., Any]] = {}

    async def __call__(
        self,
        method: Method[Request, Response],
        request: Request,
        what: str,
        *,
        timeout_s: float | None,
        lease: str = "",
    ) -> Response:
        """One call. `what` completes "containerd cannot …".

        Raises:
            DriverError: see `as_driver_error`, and `silence` for calls that may take long.
        """
        timeout_s = deadlines.time_for(timeout_s)
        call = self._once(method, request, what, timeout_s, lease)
        if timeout_s is not None and timeout_s <= CALL_S:
            return await call
        return await deadlines.attended(call, self._lives, what)

    async def _once(
        self,
        method: Method[Request, Response],
        request: Request,
        what: str,
        timeout_s: float | None,
        lease: str = "",
    ) -> Response:
        stub = self._stubs.get(method.path) or self._stub(method)
        try:
            response: Response = await stub(
                request, timeout=timeout_s, metadata=metadata(self.namespace, lease)
            )
        except grpc.RpcError as error:
            raise as_driver_error(error, what, self.address) from None
        return response

    async def _lives(self) -> None:
        await self._once(VERSION, Empty(), "tell its version", deadlines.ANSWER_S)

    async def collect(
        self, method: Method[Request, Response], request: Request, what: str, timeout_s: float
    ) -> list[Response]:
        """All messages of a server stream.

        Raises:
            DriverError: see `as_driver_error`.
        """
        timeout_s = deadlines.time_for(timeout_s) or timeout_s
        call = self._open().unary_stream(
            method.path, request_serializer=method.serialize, response_deserializer=method.parse
        )(request, timeout=timeout_s, metadata=metadata(self.namespace))
        try:
            return [message async for message in call]
        except grpc.RpcError as error:
            raise as_driver_error(error, what, self.address) from None

    async def close(self) -> None:
        """Closes the channel; a later call opens a new one."""
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


class SyncCalls:
    """The same for a process without an event loop: the puller."""

    def __init__(self, address: str, namespace: str, lease: str) -> None:
        self.address = address
        self._metadata = metadata(namespace, lease)
        self._channel = grpc.insecure_channel(f"unix:{address}", CHANNEL_OPTIONS)

    def __call__(
        self, method: Method[Request, Response], request: Request, what: str, timeout_s: float
    ) -> Response:
        """One call. `what` completes "containerd cannot …".

        Raises:
            DriverError: see `as_driver_error`.
        """
        stub = self._channel.unary_unary(
            method.path, request_serializer=method.serialize, response_deserializer=method.parse
        )
        try:
            with self._waiting(what):
                response: Response = stub(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise as_driver_error(error, what, self.address) from None
        return response

    def stream(
        self,
        method: Method[Request, Response],
        requests: Any,
        what: str,
        *,
        many_requests: bool = False,
    ) -> Any:
        """The messages that a streaming method answers.

        Raises:
            DriverError: while iterating; see `as_driver_error`.
        """
        kind = self._channel.stream_stream if many_requests else self._channel.unary_stream
        call = kind(
            method.path, request_serializer=method.serialize, response_deserializer=method.parse
        )(requests, metadata=self._metadata)
        try:
            while True:
                with self._waiting(what):
                    message = next(call, None)  # type: ignore[call-overload]
                if message is None:
                    return
                yield message
        except grpc.RpcError as error:
            raise as_driver_error(error, what, self.address) from None
        finally:
            call.cancel()  # type: ignore[no-untyped-call]

    def _waiting(self, what: str) -> AbstractContextManager[None]:
        brief = "containerd takes requests and does not answer"
        shown = f"containerd at {self.address} to {what}"
        return watchdog.over(brief, shown, deadlines.ADVICE, self._lives)

    def _lives(self) -> bool:
        """Returns whether it still tells its version, or says that it cannot."""
        stub = self._channel.unary_unary(
            VERSION.path, request_serializer=VERSION.serialize, response_deserializer=VERSION.parse
        )
        try:
            stub(Empty(), timeout=deadlines.ANSWER_S, metadata=self._metadata)
        except grpc.RpcError as error:
            return error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
        return True

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()
