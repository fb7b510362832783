"""The typed client of containerd: every call has a deadline, every failure is a DriverError.

Deleting what is gone and creating a lease that is there are no failures: that is what makes every
clean-up repeatable.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from containerd.api import bundle, rpc
from containerd.api.records import (
    ContainerRecord,
    Exit,
    ImageRecord,
    LeaseRecord,
    Mount,
    ShimAddress,
    SnapshotRecord,
    Status,
    TaskRecord,
    Version,
)
from proto.containerd import (
    containers_pb2,
    content_pb2,
    images_pb2,
    introspection_pb2,
    leases_pb2,
    runc_options_pb2,
    snapshots_pb2,
    tasks_pb2,
    types_pb2,
)
from proto.errors import Code, DriverError

T = TypeVar("T")
CALL_S = rpc.CALL_S
# A runtime that creates or starts a container may wait for disk, cgroups or a VM.
RUNTIME_S = 60.0
_AT_ONCE_S = 2.0
DEFAULT_SNAPSHOTTER = "overlayfs"
_SNAPSHOTTER_TYPE = "io.containerd.snapshotter.v1"
_SPEC_URL = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
_RUNC_OPTIONS_URL = "containerd.runc.v1.Options"
_PROCESS_URL = "types.containerd.io/opencontainers/runtime-spec/1/Process"

# What a lease calls a blob; what is still being written is "ingests".
_BLOB = "content"


class Containerd:
    """One containerd, one namespace. Belongs to the event loop that first uses it.

    Made without connecting; survives restarts of the daemon.
    """

    default_snapshotter = DEFAULT_SNAPSHOTTER

    def __init__(self, address: str, namespace: str) -> None:
        self.address = address
        self.namespace = namespace
        self._call = rpc.AsyncCalls(address, namespace)
        self._others: dict[str, Containerd] = {}

    def within(self, namespace: str) -> Containerd:
        """The same containerd, another namespace."""
        if namespace == self.namespace:
            return self
        if namespace not in self._others:
            self._others[namespace] = Containerd(self.address, namespace)
        return self._others[namespace]

    async def close(self) -> None:
        """Lets the connections go."""
        for other in self._others.values():
            await other.close()
        await self._call.close()

    async def version(self) -> Version:
        """Containerd's version."""
        found = await self._call(rpc.VERSION, Empty(), "tell its version", timeout_s=CALL_S)
        return Version(version=found.version, revision=found.revision)

    async def answers(self) -> bool:
        """Returns whether it answers at once. False also when nobody is there."""
        try:
            await self._call(rpc.VERSION, Empty(), "tell its version", timeout_s=_AT_ONCE_S)
        except DriverError:
            return False
        return True

    async def snapshotters(self) -> tuple[str, ...]:
        """Names of the snapshotters that work."""
        return tuple(sorted(plugin.id for plugin in await self._snapshotters()))

    async def snapshotter_root(self, name: str) -> str:
        """The directory where a snapshotter keeps its data; empty where containerd does not say."""
        found = (plugin for plugin in await self._snapshotters() if plugin.id == name)
        return next((plugin.exports["root"] for plugin in found if "root" in plugin.exports), "")

    async def _snapshotters(self) -> list[introspection_pb2.Plugin]:
        request = introspection_pb2.PluginsRequest(filters=[f"type=={_SNAPSHOTTER_TYPE}"])
        found = await self._call(rpc.PLUGINS, request, "list its snapshotters", timeout_s=CALL_S)
        works = (plugin for plugin in found.plugins if not plugin.HasField("init_err"))
        return [plugin for plugin in works if plugin.type == _SNAPSHOTTER_TYPE]

    # --- images and content

    async def image(self, name: str) -> ImageRecord | None:
        """The image of this normalised name, None when there is none."""
        request = images_pb2.GetImageRequest(name=name)
        found = await self._unless_gone(
            self._call(rpc.IMAGE_GET, request, f"look up image {name}", timeout_s=CALL_S)
        )
        if found is None:
            return None
        return _image(found.image)

    async def list_images(self, *filters: str) -> tuple[ImageRecord, ...]:
        """Images that match any filter, in containerd's filter syntax; all without one."""
        request = images_pb2.ListImagesRequest(filters=filters)
        found = await self._call(rpc.IMAGE_LIST, request, "list images", timeout_s=CALL_S)
        return tuple(_image(image) for image in found.images)

    async def label_image(self, name: str, key: str, value: str) -> None:
        """Sets one label of an image, or takes it away with an empty value."""
        # The mask leaves the target as it is, but containerd 1.7 ends with a nil dereference where
        # there is none (services/images: descriptors are read before the mask).
        image = images_pb2.Image(name=name, labels={key: value}, target=types_pb2.Descriptor())
        request = images_pb2.UpdateImageRequest(
            image=image, update_mask=FieldMask(paths=[f"labels.{key}"])
        )
        await self._unless_gone(
            self._call(rpc.IMAGE_UPDATE, request, f"label image {name}", timeout_s=CALL_S)
        )

    async def delete_image(self, name: str) -> None:
        """Removes an image's name, and waits for the collection of what only it referred to."""
        request = images_pb2.DeleteImageRequest(name=name, sync=True)
        await self._unless_gone(
            self._call(rpc.IMAGE_DELETE, request, f"delete image {name}", timeout_s=RUNTIME_S)
        )

    async def read_content(self, digest: str, limit_bytes: int) -> bytes:
        """A small blob whole.

        Raises:
            DriverError: NOT_FOUND, or CORRUPT when it is larger than limit_bytes.
        """
        what = f"read blob {digest}"
        request = content_pb2.ReadContentRequest(digest=digest, size=limit_bytes + 1)
        parts = await self._call.collect(rpc.CONTENT_READ, request, what, CALL_S)
        data = b"".join(part.data for part in parts)
        if len(data) > limit_bytes:
            raise DriverError(
                f"blob {digest} is too large to be what it should be",
                details=f"more than {limit_bytes} bytes",
                code=Code.CORRUPT,
            )
        return data

    # --- leases

    async def create_lease(self, id: str, *, expire_s: float, labels: Mapping[str, str]) -> None:
        """A lease that containerd drops by itself after expire_s."""
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + expire_s))
        request = leases_pb2.CreateRequest(
            id=id, labels={**labels, "containerd.io/gc.expire": expires}
        )
        try:
            await self._call(rpc.LEASE_CREATE, request, f"create lease {id}", timeout_s=CALL_S)
        except DriverError as error:
            if error.code is not Code.ALREADY_EXISTS:
                raise

    async def delete_lease(self, id: str, *, collect: bool = False) -> None:
        """Drops a lease; what nothing else refers to may then be collected.

        Args:
            id: the lease.
            collect: return when that has been collected. Otherwise it waits for a later collection:
                containerd's scheduler passes over a deletion that falls within one.
        """
        request = leases_pb2.DeleteRequest(id=id, sync=collect)
        await self._unless_gone(
            self._call(rpc.LEASE_DELETE, request, f"delete lease {id}", timeout_s=CALL_S)
        )

    async def list_leases(self, *filters: str) -> tuple[LeaseRecord, ...]:
        """Leases that match any filter, in containerd's filter syntax; all without one."""
        request = leases_pb2.ListRequest(filters=filters)
        found = await self._call(rpc.LEASE_LIST, request, "list leases", timeout_s=CALL_S)
        return tuple(
            LeaseRecord(
                id=lease.id,
                labels=dict(lease.labels),
                created_at_ns=lease.created_at.ToNanoseconds(),
            )
            for lease in found.leases
        )

    async def leased_blobs(self, id: str) -> tuple[str, ...]:
        """Digests of the whole blobs that a lease holds; none without the lease."""
        request = leases_pb2.ListResourcesRequest(id=id)
        try:
            found = await self._call(
                rpc.LEASE_RESOURCES, request, f"list what lease {id} holds", timeout_s=CALL_S
            )
        except DriverError as error:
            if error.code is Code.NOT_FOUND:
                return ()
            raise
        return tuple(one.id for one in found.resources if one.type == _BLOB)

    async def lease_blob(self, id: str, digest: str) -> None:
        """Puts a blob under a lease."""
        request = leases_pb2.AddResourceRequest(
            id=id, resource=leases_pb2.Resource(id=digest, type=_BLOB)
        )
        await self._call(rpc.LEASE_ADD, request, f"hold blob {digest}", timeout_s=CALL_S)

    # --- snapshots

    async def prepare_snapshot(
        self, snapshotter: str, key: str, parent: str, labels: Mapping[str, str], lease: str
    ) -> tuple[Mount, ...]:
        """A writable snapshot on top of `parent`, and how to mount it.

        Raises:
            DriverError: ALREADY_EXISTS for a key in use, NOT_FOUND for a missing parent.
        """
        request = snapshots_pb2.PrepareSnapshotRequest(
            snapshotter=snapshotter, key=key, parent=parent, labels=dict(labels)
        )
        answer = await self._call(
            rpc.SNAPSHOT_PREPARE,
            request,
            f"prepare snapshot {key}",
            timeout_s=CALL_S,
            lease=lease,
        )
        return tuple(_mount(mount) for mount in answer.mounts)

    async def snapshot_exists(self, snapshotter: str, key: str) -> bool:
        """Returns whether there is a snapshot of this key or chain id."""
        request = snapshots_pb2.StatSnapshotRequest(snapshotter=snapshotter, key=key)
        what = f"look up snapshot {key} of {snapshotter}"
        return (
            await self._unless_gone(self._call(rpc.SNAPSHOT_STAT, request, what, timeout_s=CALL_S))
            is not None
        )

    async def remove_snapshot(self, snapshotter: str, key: str) -> None:
        """Removes a snapshot."""
        request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=snapshotter, key=key)
        await self._unless_gone(
            self._call(rpc.SNAPSHOT_REMOVE, request, f"remove snapshot {key}", timeout_s=RUNTIME_S)
        )

    async def list_snapshots(self, snapshotter: str, *filters: str) -> tuple[SnapshotRecord, ...]:
        """Writable snapshots that match any filter; all without one."""
        request = snapshots_pb2.ListSnapshotsRequest(snapshotter=snapshotter, filters=filters)
        what = f"list snapshots of {snapshotter}"
        parts = await self._call.collect(rpc.SNAPSHOT_LIST, request, what, CALL_S)
        return tuple(
            SnapshotRecord(
                snapshotter=snapshotter,
                key=info.name,
                labels=dict(info.labels),
                created_at_ns=info.created_at.ToNanoseconds(),
            )
            for part in parts
            for info in part.info
            if info.kind == snapshots_pb2.ACTIVE
        )

    # --- containers

    async def create_container(self, record: ContainerRecord, lease: str) -> None:
        """Writes the container's record.

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
            rpc.CONTAINER_CREATE,
            containers_pb2.CreateContainerRequest(container=container),
            f"create container {record.id}",
            timeout_s=CALL_S,
            lease=lease,
        )

    async def get_container(self, id: str) -> ContainerRecord | None:
        """The container's record, None when there is none."""
        request = containers_pb2.GetContainerRequest(id=id)
        found = await self._unless_gone(
            self._call(rpc.CONTAINER_GET, request, f"look up container {id}", timeout_s=CALL_S)
        )
        return None if found is None else _container(found.container)

    async def list_containers(self, *filters: str) -> tuple[ContainerRecord, ...]:
        """Containers that match any filter, in containerd's filter syntax; all without one."""
        request = containers_pb2.ListContainersRequest(filters=filters)
        found = await self._call(rpc.CONTAINER_LIST, request, "list containers", timeout_s=CALL_S)
        return tuple(_container(container) for container in found.containers)

    async def delete_container(self, id: str) -> None:
        """Deletes the record; its task must be gone."""
        request = containers_pb2.DeleteContainerRequest(id=id)
        await self._unless_gone(
            self._call(rpc.CONTAINER_DELETE, request, f"delete container {id}", timeout_s=CALL_S)
        )

    # --- tasks

    async def create_task(
        self,
        id: str,
        mounts: tuple[Mount, ...],
        *,
        stdin: str,
        stdout: str,
        stderr: str,
        terminal: bool,
    ) -> int:
        """Has the runtime make the container; returns the pid of its process, not started yet.

        Raises:
            DriverError: ALREADY_EXISTS where there is a task, or what was left of one.
        """
        request = tasks_pb2.CreateTaskRequest(
            container_id=id,
            rootfs=[
                types_pb2.Mount(type=m.type, source=m.source, options=m.options, target=m.target)
                for m in mounts
            ],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            terminal=terminal,
        )
        try:
            answer = await self._call(
                rpc.TASK_CREATE, request, f"create the task of container {id}", timeout_s=RUNTIME_S
            )
        except DriverError as error:
            # The bundle of a task that was not cleaned up, or runc's state, in old and new words.
            words = (f"/{id}: file exists", "container with id exists", "with given ID already")
            if any(word in str(error) for word in words):
                error.code = Code.ALREADY_EXISTS
            raise
        return answer.pid

    async def start_task(self, id: str) -> int:
        """Starts the process of a created task; returns its pid."""
        request = tasks_pb2.StartRequest(container_id=id)
        answer = await self._call(
            rpc.TASK_START, request, f"start the task of container {id}", timeout_s=RUNTIME_S
        )
        return answer.pid

    async def task(self, id: str) -> TaskRecord | None:
        """The container's task, None when there is none."""
        request = tasks_pb2.GetRequest(container_id=id)
        found = await self._unless_gone(
            self._call(
                rpc.TASK_GET, request, f"look up the task of container {id}", timeout_s=CALL_S
            )
        )
        if found is None:
            return None
        process = found.process
        return TaskRecord(
            id=id,
            pid=process.pid,
            status=Status(process.status),
            exit_status=process.exit_status,
            exited_at_ns=process.exited_at.ToNanoseconds(),
            stdout=process.stdout,
            stderr=process.stderr,
        )

    async def delete_task(self, id: str) -> Exit | None:
        """Deletes a task that has ended; None when there is none."""
        request = tasks_pb2.DeleteTaskRequest(container_id=id)
        found = await self._unless_gone(
            self._call(
                rpc.TASK_DELETE,
                request,
                f"delete the task of container {id}",
                timeout_s=RUNTIME_S,
            )
        )
        if found is None:
            return None
        return Exit(code=found.exit_status, at_ns=found.exited_at.ToNanoseconds())

    async def kill_task(
        self,
        id: str,
        signal: int,
        *,
        everyone: bool,
        exec_id: str = "",
    ) -> None:
        """Sends a signal to the first process, to every process, or to that of an exec."""
        request = tasks_pb2.KillRequest(
            container_id=id, signal=signal, all=everyone, exec_id=exec_id
        )
        await self._call(
            rpc.TASK_KILL,
            request,
            f"send signal {signal} to container {id}",
            timeout_s=CALL_S,
        )

    async def wait_task(self, id: str, exec_id: str = "") -> Exit:
        """Waits, without a deadline, for the first process or an exec's to end."""
        request = tasks_pb2.WaitRequest(container_id=id, exec_id=exec_id)
        found = await self._call(rpc.TASK_WAIT, request, f"wait for container {id}", timeout_s=None)
        return Exit(code=found.exit_status, at_ns=found.exited_at.ToNanoseconds())

    # --- exec

    async def exec_create(
        self,
        id: str,
        exec_id: str,
        process_json: bytes,
        *,
        stdin: str,
        stdout: str,
        stderr: str,
        terminal: bool,
    ) -> None:
        """Prepares a process in the container; process_json is an OCI process."""
        request = tasks_pb2.ExecProcessRequest(
            container_id=id,
            exec_id=exec_id,
            spec=AnyMessage(type_url=_PROCESS_URL, value=process_json),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            terminal=terminal,
        )
        await self._call(
            rpc.TASK_EXEC, request, f"prepare a command in container {id}", timeout_s=RUNTIME_S
        )

    async def exec_start(self, id: str, exec_id: str) -> int:
        """Starts the process of an exec; returns its pid."""
        request = tasks_pb2.StartRequest(container_id=id, exec_id=exec_id)
        answer = await self._call(
            rpc.TASK_START, request, f"run a command in container {id}", timeout_s=RUNTIME_S
        )
        return answer.pid

    async def resize(self, id: str, exec_id: str, *, width: int, height: int) -> None:
        """Sets the window size of an exec's terminal, in characters."""
        request = tasks_pb2.ResizePtyRequest(
            container_id=id, exec_id=exec_id, width=width, height=height
        )
        await self._call(
            rpc.TASK_RESIZE,
            request,
            f"resize the terminal in container {id}",
            timeout_s=CALL_S,
        )

    async def close_stdin(self, id: str, exec_id: str) -> None:
        """Has the shim drop the writing end of an exec's stdin that it holds."""
        request = tasks_pb2.CloseIORequest(container_id=id, exec_id=exec_id, stdin=True)
        await self._call(
            rpc.TASK_CLOSE_IO, request, f"close stdin in container {id}", timeout_s=CALL_S
        )

    async def delete_exec(self, id: str, exec_id: str) -> None:
        """Removes an exec that has ended."""
        request = tasks_pb2.DeleteProcessRequest(container_id=id, exec_id=exec_id)
        await self._unless_gone(
            self._call(
                rpc.TASK_DELETE_PROCESS,
                request,
                f"remove a command of container {id}",
                timeout_s=RUNTIME_S,
            )
        )

    # --- the shim

    async def shim(self, id: str, pid: int) -> ShimAddress | None:
        """Returns where the container's shim listens; None for one that does not speak ttrpc."""
        return bundle.find_shim(self.address, self.namespace, id, pid)

    async def _unless_gone(self, call: Awaitable[T]) -> T | None:
        try:
            return await call
        except DriverError as error:
            if error.code is Code.NOT_FOUND:
                return None
            raise


def _image(image: images_pb2.Image) -> ImageRecord:
    return ImageRecord(
        name=image.name,
        digest=image.target.digest,
        media_type=image.target.media_type,
        size=image.target.size,
        labels=dict(image.labels),
    )


def _mount(mount: types_pb2.Mount) -> Mount:
    return Mount(
        type=mount.type, source=mount.source, options=tuple(mount.options), target=mount.target
    )


def _runtime(record: ContainerRecord) -> containers_pb2.Container.Runtime:
    runtime = containers_pb2.Container.Runtime(name=record.runtime)
    if record.runtime_binary:
        options = runc_options_pb2.Options(binary_name=record.runtime_binary)
        runtime.options.type_url = _RUNC_OPTIONS_URL
        runtime.options.value = options.SerializeToString()
    return runtime


def _container(container: containers_pb2.Container) -> ContainerRecord:
    return ContainerRecord(
        id=container.id,
        labels=dict(container.labels),
        image=container.image,
        runtime=container.runtime.name,
        spec_json=container.spec.value,
        snapshotter=container.snapshotter,
        snapshot_key=container.snapshot_key,
        created_at_ns=container.created_at.ToNanoseconds(),
    )
