"""containerd's service Containers: records from which tasks are created."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any as AnyMessage

from containerd.api import methods
from containerd.api.calls import CALL_S, LIST_S, AsyncCalls
from containerd.api.errors import unless_missing
from containerd.api.records import ContainerRecord
from proto.containerd import containers_pb2, runc_options_pb2

_SPEC_URL = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
_RUNC_OPTIONS_URL = "containerd.runc.v1.Options"


class Containers:
    """Containers of a namespace. Deleting a missing container is no failure."""

    def __init__(self, call: AsyncCalls) -> None:
        self._call = call

    async def create(self, record: ContainerRecord) -> None:
        """Writes a container's record.

        Raises:
            DriverError: ALREADY_EXISTS for an id in use.
        """
        container = containers_pb2.Container(
            id=record.id,
            labels=dict(record.labels),
            image=record.image,
            runtime=_runtime(record),
            spec=AnyMessage(type_url=_SPEC_URL, value=record.spec_json),
            snapshotter=record.snapshotter,
            snapshot_key=record.snapshot_key,
        )
        await self._call(
            methods.CONTAINER_CREATE,
            containers_pb2.CreateContainerRequest(container=container),
            f"create container {record.id}",
            timeout_s=CALL_S,
        )

    async def get(self, id: str) -> ContainerRecord | None:
        """Returns a container's record; None if the container is missing."""
        request = containers_pb2.GetContainerRequest(id=id)
        answer = await unless_missing(
            self._call(methods.CONTAINER_GET, request, f"look up container {id}", timeout_s=CALL_S)
        )
        return None if answer is None else _record(answer.container)

    async def list(self, *filters: str) -> tuple[ContainerRecord, ...]:
        """Returns containers that match any filter, in containerd's syntax; all without one.

        The records have no spec. containerd answers with a stream: a single message has at most
        16 MiB, which the specs of some thousand containers exceed.
        """
        request = containers_pb2.ListContainersRequest(filters=filters)
        found = await self._call.collect(
            methods.CONTAINER_LIST,
            request,
            "list containers",
            LIST_S,
            lambda message: _record(message.container, with_spec=False),
        )
        return tuple(found)

    async def delete(self, id: str) -> None:
        """Deletes a container's record. The container's task must be deleted before.

        Raises:
            DriverError: PRECONDITION while the container has a task.
        """
        request = containers_pb2.DeleteContainerRequest(id=id)
        action = f"delete container {id}"
        await unless_missing(
            self._call(methods.CONTAINER_DELETE, request, action, timeout_s=CALL_S)
        )


def _runtime(record: ContainerRecord) -> containers_pb2.Container.Runtime:
    runtime = containers_pb2.Container.Runtime(name=record.runtime)
    if record.runtime_binary:
        options = runc_options_pb2.Options(binary_name=record.runtime_binary)
        runtime.options.type_url = _RUNC_OPTIONS_URL
        runtime.options.value = options.SerializeToString()
    return runtime


def _record(container: containers_pb2.Container, *, with_spec: bool = True) -> ContainerRecord:
    return ContainerRecord(
        id=container.id,
        labels=dict(container.labels),
        image=container.image,
        runtime=container.runtime.name,
        spec_json=container.spec.value if with_spec else b"",
        snapshotter=container.snapshotter,
        snapshot_key=container.snapshot_key,
        created_at_ns=container.created_at.ToNanoseconds(),
    )
