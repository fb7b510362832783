"""FakeContainerd: the server, the socket and the faults, in threads of the test's process."""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import grpc
from google.protobuf.empty_pb2 import Empty

from containerd.api import methods
from containerd.api.methods import Method
from containerd.image import oci_image as oci
from proto.containerd import (
    content_pb2,
    images_pb2,
    introspection_pb2,
    snapshots_pb2,
    types_pb2,
    version_pb2,
)
from tests.support.closing import Closing
from tests.support.fakes.containerd.faults import EVERY_CALL, Fault, Faults, Refused
from tests.support.fakes.containerd.metadata import SNAPSHOTTERS, Metadata, Snapshot, serves, unpack
from tests.support.fakes.containerd.processes import Tasks
from tests.support.registries import images

_THREADS = 128
PASSWD = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000:Bob:/home/bob:/bin/sh\n"


@dataclass(frozen=True, slots=True)
class Call:
    """One received call, with the time limit of the caller; None means no limit."""

    path: str
    deadline_s: float | None
    request: Any


class FakeContainerd(Closing):
    """A containerd of a `with` block: `.address` is the socket.

    `down` ends every connection and call, as SIGKILL would. `start` then serves the same metadata;
    the tasks have gone on.
    """

    namespace = "nomad-test"

    def __init__(self) -> None:
        # Short: the shims' and FIFOs' paths below it must stay under 108 bytes.
        self.base = Path(tempfile.mkdtemp(prefix="fcd-"))
        self.address = str(self.base / "containerd.sock")
        self.version = "1.6.20"
        self.deprecations: dict[str, str] = {}
        self.faults = Faults()
        self.calls: list[Call] = []
        self._lock = threading.RLock()
        self._namespaces: dict[str, tuple[Metadata, Tasks]] = {}
        self._server: grpc.Server | None = None

    def enter(self) -> None:
        """See `Closing.enter`."""
        self.start()

    # --- life

    def start(self) -> None:
        """Listens; does nothing in a second call."""
        if self._server is not None:
            return
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="fake-containerd")
        self._server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((_Services(self),))
        assert self._server.add_insecure_port(f"unix:{self.address}")
        self._server.start()

    def down(self) -> None:
        """Ends the server; does nothing in a second call."""
        server, self._server = self._server, None
        if server is not None:
            server.stop(0).wait()
            Path(self.address).unlink(missing_ok=True)

    def close(self) -> None:
        """Ends tasks, server and files."""
        self.faults.clear()
        for _, tasks in self._namespaces.values():
            tasks.close()
        self.down()
        shutil.rmtree(self.base, ignore_errors=True)

    # --- faults

    def fail(
        self,
        method: Method[Any, Any],
        code: grpc.StatusCode,
        text: str,
        *,
        after: bool = False,
        container: str = "",
    ) -> Fault:
        """Refuses calls of a method; see `Fault`."""
        return self.faults.add(Fault(method.path, code, text, after=after, container=container))

    def hang(self, method: Method[Any, Any], *, after: bool = False, container: str = "") -> Fault:
        """Answers no calls of a method; see `Fault`."""
        return self.faults.add(Fault(method.path, None, after=after, container=container))

    def silent(self) -> Fault:
        """Accepts all calls and answers none, as a stopped process does."""
        return self.faults.add(Fault(EVERY_CALL, None))

    # --- metadata

    @property
    def metadata(self) -> Metadata:
        """The metadata of the tests' namespace."""
        return self.of(self.namespace)[0]

    @property
    def tasks(self) -> Tasks:
        """The tasks of the tests' namespace."""
        return self.of(self.namespace)[1]

    def of(self, namespace: str) -> tuple[Metadata, Tasks]:
        """Returns metadata and tasks of a namespace, created at the first call."""
        with self._lock:
            if namespace not in self._namespaces:
                metadata = Metadata(namespace, self.base / "snapshots" / namespace)
                self._namespaces[namespace] = metadata, Tasks(metadata, self.base)
            return self._namespaces[namespace]

    def add_image(self, name: str, config: dict[str, Any] | None = None) -> str:
        """Adds a small image with users, unpacked for each snapshotter; returns the chain id."""
        layer = images.layer({"etc": None, "tmp": None, "etc/passwd": (PASSWD, 0o644)})
        image = images.build([layer], config)
        chain = oci.chain_id((images.digest_of(layer),))
        metadata = self.metadata
        metadata.blobs |= {**image.blobs, image.digest: image.body}
        metadata.images[name] = images_pb2.Image(
            name=name,
            target=types_pb2.Descriptor(
                media_type=image.media_type, digest=image.digest, size=len(image.body)
            ),
        )
        for snapshotter in SNAPSHOTTERS:
            path = metadata.root / f"image-{snapshotter}-{len(metadata.images)}"
            with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
                unpack(tar, path)
            info = snapshots_pb2.Info(name=chain, kind=snapshots_pb2.COMMITTED)
            metadata.snapshots[snapshotter, chain] = Snapshot(info, path)
        return chain

    def leftovers(self) -> list[str]:
        """Lists the remains of the driver, including objects that no client sees."""
        metadata, tasks = self.metadata, self.tasks
        with self._lock:
            left = [f"container {name}" for name in metadata.containers]
            left += [f"task {name}" for name in tasks.tasks]
            left += [
                f"snapshot {key}"
                for (_, key), one in metadata.snapshots.items()
                if one.info.kind != snapshots_pb2.COMMITTED
            ]
            return left + [f"lease {name}" for name in metadata.leases]

    def remove_all(self) -> None:
        """Removes the objects of a failed test."""
        self.tasks.close()
        self.metadata.remove_all()

    # --- services that belong to no namespace

    @serves(methods.VERSION)
    def _version(self, request: Empty) -> version_pb2.VersionResponse:  # noqa: ARG002
        return version_pb2.VersionResponse(version=self.version, revision="fake")

    @serves(methods.PLUGINS)
    def _plugins(
        self,
        request: introspection_pb2.PluginsRequest,  # noqa: ARG002
    ) -> introspection_pb2.PluginsResponse:
        kind = "io.containerd.snapshotter.v1"
        plugins = [
            introspection_pb2.Plugin(type=kind, id=name, exports={"root": str(self.base)})
            for name in SNAPSHOTTERS
        ]
        return introspection_pb2.PluginsResponse(plugins=plugins)

    @serves(methods.SERVER)
    def _warnings(self, request: Empty) -> introspection_pb2.ServerResponse:  # noqa: ARG002
        warning = introspection_pb2.DeprecationWarning
        return introspection_pb2.ServerResponse(
            deprecations=[warning(id=key, message=text) for key, text in self.deprecations.items()]
        )

    # --- serving

    def answer(self, path: str, request: Any, context: grpc.ServicerContext) -> Any:
        """Executes a call, or applies a fault to the call."""
        remaining = context.time_remaining()
        self.calls.append(Call(path, remaining, request))
        fault = self.faults.find(path, request)
        if fault is not None and not fault.after:
            fault.befall(context)
        result = self._work(path, request, dict(context.invocation_metadata()))
        if fault is not None and fault.after:
            fault.befall(context)
        return result

    def _work(self, path: str, request: Any, headers: dict[str, Any]) -> Any:
        if path in _OWN:
            return _OWN[path].call(self, request)
        namespace = headers.get("containerd-namespace", "")
        if not namespace:
            text = "namespace is required: failed precondition"
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, text)
        metadata, tasks = self.of(namespace)
        if path in _TASKS:  # may take as long as a process
            return _TASKS[path].call(tasks, request)
        with self._lock:
            if path == methods.SNAPSHOT_PREPARE.path:
                return metadata.prepare(request, headers.get("containerd-lease", ""))
            if path == methods.CONTENT_WRITE.path:
                return metadata.write(request)
            return _BOOKS[path].call(metadata, request)


@dataclass(frozen=True, slots=True)
class _Handler:
    """A method of the API: the function, and the class of the request."""

    call: Callable[..., Any]
    request: Any


def _handlers(owner: type) -> dict[str, _Handler]:
    found = {}
    for item in vars(owner).values():
        path = getattr(item, "serves", "")
        if path:
            found[path] = _Handler(item, get_type_hints(item)["request"])
    return found


_OWN = _handlers(FakeContainerd)
_BOOKS = _handlers(Metadata)
_TASKS = _handlers(Tasks)
_STREAMS = {
    each.path for each in (methods.CONTENT_READ, methods.SNAPSHOT_LIST, methods.CONTAINER_LIST)
}
_REQUESTS = {path: one.request for path, one in {**_OWN, **_BOOKS, **_TASKS}.items()} | {
    methods.SNAPSHOT_PREPARE.path: snapshots_pb2.PrepareSnapshotRequest,
    methods.CONTENT_WRITE.path: content_pb2.WriteContentRequest,
}


class _Services(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Every method of the fake; other methods are UNIMPLEMENTED."""

    def __init__(self, daemon: FakeContainerd) -> None:
        self._daemon = daemon

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path = handler_call_details.method
        request = _REQUESTS.get(path)
        if request is None:
            return None
        daemon = self._daemon

        def unary(message: Any, context: grpc.ServicerContext) -> Any:
            try:
                return daemon.answer(path, message, context)
            except Refused as refused:
                context.abort(refused.code, refused.text)

        def many(messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            for message in messages:
                yield unary(message, context)

        def stream(message: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            yield from unary(message, context)

        parts = {"request_deserializer": request.FromString, "response_serializer": _bytes}
        if path == methods.CONTENT_WRITE.path:
            return grpc.stream_stream_rpc_method_handler(many, **parts)
        if path in _STREAMS:
            return grpc.unary_stream_rpc_method_handler(stream, **parts)
        return grpc.unary_unary_rpc_method_handler(unary, **parts)


def _bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
