"""The metadata of a fake containerd, one `Metadata` per namespace, and the services on metadata."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.empty_pb2 import Empty

from containerd.api import methods
from containerd.api.methods import Method
from containerd.api.snapshots import GC_ROOT
from proto.containerd import (
    containers_pb2,
    content_pb2,
    diff_pb2,
    images_pb2,
    leases_pb2,
    snapshots_pb2,
    types_pb2,
)
from tests.support.fakes.containerd.faults import Refused
from tests.support.fakes.containerd.filters import matches, set_label

SNAPSHOTTERS = ("native", "overlayfs")
F = TypeVar("F", bound=Callable[..., Any])


def serves(method: Method[Any, Any]) -> Callable[[F], F]:
    """Marks the handler of a method; the annotation of `request` is the message's class."""

    def mark(handler: F) -> F:
        handler.serves = method.path  # type: ignore[attr-defined]
        return handler

    return mark


def gone(what: str) -> Refused:
    """Returns containerd's error for an absent object."""
    return Refused(grpc.StatusCode.NOT_FOUND, f"{what}: not found")


def exists(what: str) -> Refused:
    """Returns containerd's error for an object that exists already."""
    return Refused(grpc.StatusCode.ALREADY_EXISTS, f"{what}: already exists")


def precondition(what: str) -> Refused:
    """Returns containerd's error for an object in the wrong state."""
    return Refused(grpc.StatusCode.FAILED_PRECONDITION, f"{what}: failed precondition")


@dataclass(slots=True)
class Snapshot:
    """A directory with all files of the snapshot: a copy of the parent, and later files."""

    info: snapshots_pb2.Info
    path: Path

    def mounts(self) -> list[types_pb2.Mount]:
        """Returns the mounts, as the native snapshotter does."""
        options = ["rbind", "rw" if self.info.kind == snapshots_pb2.ACTIVE else "ro"]
        return [types_pb2.Mount(type="bind", source=str(self.path), options=options)]


@dataclass(slots=True)
class Metadata:
    """The metadata of one namespace."""

    name: str
    root: Path
    images: dict[str, images_pb2.Image] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    blob_labels: dict[str, dict[str, str]] = field(default_factory=dict)
    ingests: dict[str, bytearray] = field(default_factory=dict)
    leases: dict[str, leases_pb2.Lease] = field(default_factory=dict)
    held: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    snapshots: dict[tuple[str, str], Snapshot] = field(default_factory=dict)
    containers: dict[str, containers_pb2.Container] = field(default_factory=dict)
    directories: int = 0

    # --- images

    @serves(methods.IMAGE_GET)
    def image_get(self, request: images_pb2.GetImageRequest) -> images_pb2.GetImageResponse:
        return images_pb2.GetImageResponse(image=self._image(request.name))

    @serves(methods.IMAGE_LIST)
    def image_list(self, request: images_pb2.ListImagesRequest) -> images_pb2.ListImagesResponse:
        found = [one for one in self.images.values() if matches(one, request.filters)]
        return images_pb2.ListImagesResponse(images=found)

    @serves(methods.IMAGE_CREATE)
    def image_create(
        self, request: images_pb2.CreateImageRequest
    ) -> images_pb2.CreateImageResponse:
        if request.image.name in self.images:
            raise exists(f'image "{request.image.name}"')
        self.images[request.image.name] = request.image
        return images_pb2.CreateImageResponse(image=request.image)

    @serves(methods.IMAGE_UPDATE)
    def image_update(
        self, request: images_pb2.UpdateImageRequest
    ) -> images_pb2.UpdateImageResponse:
        if not request.image.HasField("target"):
            raise AssertionError("containerd 1.7 ends at an update without a target")
        image = self._image(request.image.name)
        for path in request.update_mask.paths or ["labels", "target"]:
            kind, _, key = path.partition(".")
            if kind == "target":
                image.target.CopyFrom(request.image.target)
            elif key:
                set_label(image.labels, key, request.image.labels.get(key, ""))
            else:
                image.labels.clear()
                image.labels.update(request.image.labels)
        return images_pb2.UpdateImageResponse(image=image)

    @serves(methods.IMAGE_DELETE)
    def image_delete(self, request: images_pb2.DeleteImageRequest) -> Empty:
        del self.images[self._image(request.name).name]
        return Empty()

    def _image(self, name: str) -> images_pb2.Image:
        if name not in self.images:
            raise gone(f'image "{name}"')
        return self.images[name]

    # --- content

    @serves(methods.CONTENT_UPDATE)
    def content_update(self, request: content_pb2.UpdateRequest) -> content_pb2.UpdateResponse:
        self._blob(request.info.digest)
        labels = self.blob_labels.setdefault(request.info.digest, {})
        for path in request.update_mask.paths:
            key = path.removeprefix("labels.")
            set_label(labels, key, request.info.labels.get(key, ""))
        return content_pb2.UpdateResponse(info=self._info(request.info.digest))

    @serves(methods.CONTENT_READ)
    def content_read(
        self, request: content_pb2.ReadContentRequest
    ) -> Iterator[content_pb2.ReadContentResponse]:
        body = self._blob(request.digest)
        end = request.offset + request.size if request.size else len(body)
        data = body[request.offset : end]
        return iter([content_pb2.ReadContentResponse(offset=request.offset, data=data)])

    @serves(methods.CONTENT_ABORT)
    def content_abort(self, request: content_pb2.AbortRequest) -> Empty:
        if self.ingests.pop(request.ref, None) is None:
            raise gone(f"ingest {request.ref}")
        return Empty()

    def write(self, request: content_pb2.WriteContentRequest) -> content_pb2.WriteContentResponse:
        """Answers one message of a Write stream."""
        if request.expected in self.blobs:
            raise exists(f"content {request.expected}")
        ingest = self.ingests.setdefault(request.ref, bytearray())
        ingest += request.data
        answer = content_pb2.WriteContentResponse(action=request.action, offset=len(ingest))
        if request.action == content_pb2.COMMIT:
            body = bytes(ingest)
            answer.digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
            if request.total not in {0, len(body)}:
                raise precondition(f"unexpected commit size {len(body)}, expected {request.total}")
            if request.expected not in {"", answer.digest}:
                raise precondition(
                    f"unexpected commit digest {answer.digest}, expected {request.expected}"
                )
            self.blobs[answer.digest] = body
            self.blob_labels[answer.digest] = dict(request.labels)
            del self.ingests[request.ref]
        return answer

    def _blob(self, digest: str) -> bytes:
        if digest not in self.blobs:
            raise gone(f"content {digest}")
        return self.blobs[digest]

    def _info(self, digest: str) -> content_pb2.Info:
        size = len(self._blob(digest))
        return content_pb2.Info(digest=digest, size=size, labels=self.blob_labels.get(digest))

    # --- leases

    @serves(methods.LEASE_CREATE)
    def lease_create(self, request: leases_pb2.CreateRequest) -> leases_pb2.CreateResponse:
        if request.id in self.leases:
            raise exists(f'lease "{request.id}"')
        lease = leases_pb2.Lease(id=request.id, labels=request.labels)
        lease.created_at.GetCurrentTime()
        self.leases[request.id] = lease
        return leases_pb2.CreateResponse(lease=lease)

    @serves(methods.LEASE_DELETE)
    def lease_delete(self, request: leases_pb2.DeleteRequest) -> Empty:
        if self.leases.pop(request.id, None) is None:
            raise gone(f'lease "{request.id}"')
        self.held.pop(request.id, None)
        self.collect()
        return Empty()

    @serves(methods.LEASE_LIST)
    def lease_list(self, request: leases_pb2.ListRequest) -> leases_pb2.ListResponse:
        found = [one for one in self.leases.values() if matches(one, request.filters)]
        return leases_pb2.ListResponse(leases=found)

    @serves(methods.LEASE_ADD)
    def lease_add(self, request: leases_pb2.AddResourceRequest) -> Empty:
        self.hold(request.id, (request.resource.type, request.resource.id))
        return Empty()

    @serves(methods.LEASE_RESOURCES)
    def lease_resources(
        self, request: leases_pb2.ListResourcesRequest
    ) -> leases_pb2.ListResourcesResponse:
        if request.id not in self.leases:
            raise gone(f'lease "{request.id}"')
        found = [
            leases_pb2.Resource(id=name, type=kind if kind == "content" else f"snapshots/{kind}")
            for kind, name in sorted(self.held.get(request.id, ()))
        ]
        return leases_pb2.ListResourcesResponse(resources=found)

    def hold(self, lease: str, key: tuple[str, str]) -> None:
        """Adds a snapshot, or a blob as content, to a lease."""
        if not lease:
            return
        if lease not in self.leases:
            raise gone(f'lease "{lease}"')
        self.held.setdefault(lease, set()).add(key)

    def remove_all(self) -> None:
        """Removes the objects of a failed test."""
        for table in (self.containers, self.leases, self.held):
            table.clear()
        for snapshot in self.snapshots.values():
            snapshot.info.labels.pop(GC_ROOT, None)
        self.collect()

    def collect(self) -> None:
        """Removes writable snapshots that no lease, no container and no label keeps."""
        kept = {key for keys in self.held.values() for key in keys}
        kept |= {key for key, one in self.snapshots.items() if GC_ROOT in one.info.labels}
        kept |= {(one.snapshotter, one.snapshot_key) for one in self.containers.values()}
        for key, snapshot in list(self.snapshots.items()):
            if snapshot.info.kind == snapshots_pb2.ACTIVE and key not in kept:
                self._drop(key)

    # --- snapshots

    def prepare(
        self, request: snapshots_pb2.PrepareSnapshotRequest, lease: str
    ) -> snapshots_pb2.PrepareSnapshotResponse:
        """Creates a writable snapshot, under a lease if the lease exists."""
        key = self._key(request.snapshotter, request.key)
        if key in self.snapshots:
            raise exists(f'snapshot "{request.key}"')
        parent = self._snapshot(request.snapshotter, request.parent) if request.parent else None
        self.hold(lease, key)
        self.directories += 1
        path = self.root / str(self.directories)
        if parent is None:
            path.mkdir(parents=True)
        else:
            shutil.copytree(parent.path, path, symlinks=True)
        info = snapshots_pb2.Info(
            name=request.key,
            parent=request.parent,
            kind=snapshots_pb2.ACTIVE,
            labels=request.labels,
        )
        info.created_at.GetCurrentTime()
        self.snapshots[key] = Snapshot(info, path)
        return snapshots_pb2.PrepareSnapshotResponse(mounts=self.snapshots[key].mounts())

    @serves(methods.SNAPSHOT_COMMIT)
    def snapshot_commit(self, request: snapshots_pb2.CommitSnapshotRequest) -> Empty:
        if (request.snapshotter, request.name) in self.snapshots:
            raise exists(f'snapshot "{request.name}"')
        snapshot = self._snapshot(request.snapshotter, request.key)
        snapshot.info.name, snapshot.info.kind = request.name, snapshots_pb2.COMMITTED
        snapshot.info.labels.update(request.labels)
        del self.snapshots[request.snapshotter, request.key]
        self.snapshots[request.snapshotter, request.name] = snapshot
        return Empty()

    @serves(methods.SNAPSHOT_REMOVE)
    def snapshot_remove(self, request: snapshots_pb2.RemoveSnapshotRequest) -> Empty:
        self._snapshot(request.snapshotter, request.key)
        for (snapshotter, _), other in self.snapshots.items():
            if snapshotter == request.snapshotter and other.info.parent == request.key:
                raise precondition("cannot remove snapshot with child")
        self._drop((request.snapshotter, request.key))
        return Empty()

    @serves(methods.SNAPSHOT_STAT)
    def snapshot_stat(
        self, request: snapshots_pb2.StatSnapshotRequest
    ) -> snapshots_pb2.StatSnapshotResponse:
        found = self._snapshot(request.snapshotter, request.key)
        return snapshots_pb2.StatSnapshotResponse(info=found.info)

    @serves(methods.SNAPSHOT_LIST)
    def snapshot_list(
        self, request: snapshots_pb2.ListSnapshotsRequest
    ) -> Iterator[snapshots_pb2.ListSnapshotsResponse]:
        found = [
            one.info
            for (snapshotter, _), one in self.snapshots.items()
            if snapshotter == request.snapshotter and matches(one.info, request.filters)
        ]
        return iter([snapshots_pb2.ListSnapshotsResponse(info=found)])

    @serves(methods.DIFF_APPLY)
    def diff_apply(self, request: diff_pb2.ApplyRequest) -> diff_pb2.ApplyResponse:
        packed = io.BytesIO(self._blob(request.diff.digest))
        with tarfile.open(fileobj=packed) as tar:
            unpack(tar, Path(request.mounts[0].source))
            assert tar.fileobj is not None
            tar.fileobj.seek(0)
            plain = tar.fileobj.read(-1)
        digest = f"sha256:{hashlib.sha256(plain).hexdigest()}"
        return diff_pb2.ApplyResponse(applied=types_pb2.Descriptor(digest=digest, size=len(plain)))

    def _key(self, snapshotter: str, key: str) -> tuple[str, str]:
        if snapshotter not in SNAPSHOTTERS:
            text = f"snapshotter not loaded: {snapshotter}: invalid argument"
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, text)
        return snapshotter, key

    def _snapshot(self, snapshotter: str, key: str) -> Snapshot:
        found = self.snapshots.get(self._key(snapshotter, key))
        if found is None:
            raise gone(f"snapshot {key} does not exist")
        return found

    def _drop(self, key: tuple[str, str]) -> None:
        shutil.rmtree(self.snapshots.pop(key).path, ignore_errors=True)

    # --- containers

    @serves(methods.CONTAINER_GET)
    def container_get(
        self, request: containers_pb2.GetContainerRequest
    ) -> containers_pb2.GetContainerResponse:
        return containers_pb2.GetContainerResponse(container=self.container(request.id))

    @serves(methods.CONTAINER_LIST)
    def container_list(
        self, request: containers_pb2.ListContainersRequest
    ) -> Iterator[containers_pb2.ListContainerMessage]:
        found = [one for one in self.containers.values() if matches(one, request.filters)]
        return iter([containers_pb2.ListContainerMessage(container=one) for one in found])

    @serves(methods.CONTAINER_CREATE)
    def container_create(
        self, request: containers_pb2.CreateContainerRequest
    ) -> containers_pb2.CreateContainerResponse:
        container = request.container
        if container.id in self.containers:
            raise exists(f'container "{container.id}"')
        container.created_at.GetCurrentTime()
        self.containers[container.id] = container
        return containers_pb2.CreateContainerResponse(container=container)

    @serves(methods.CONTAINER_DELETE)
    def container_delete(self, request: containers_pb2.DeleteContainerRequest) -> Empty:
        self.container(request.id)
        del self.containers[request.id]
        self.collect()
        return Empty()

    def container(self, id: str) -> containers_pb2.Container:
        """Returns the record of a container."""
        if id not in self.containers:
            raise gone(f'container "{id}" in namespace "{self.name}"')
        return self.containers[id]


def unpack(tar: tarfile.TarFile, into: Path) -> None:
    """Extracts a layer that the tests made."""
    filters = {"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {}
    tar.extractall(into, **filters)  # type: ignore[arg-type] # noqa: S202
