"""Table of the containerd calls in use: the path of each method, and the types of its messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from google.protobuf.empty_pb2 import Empty

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
from proto.values import dataclass

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """An RPC of containerd: path, encoder of the request, decoder of the response."""

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

SERVER = _method(
    "introspection.v1.Introspection", "Server", Empty, introspection_pb2.ServerResponse
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
    "ListStream",
    containers_pb2.ListContainersRequest,
    containers_pb2.ListContainerMessage,
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
TASK_LIST = _method(_TASKS, "List", tasks_pb2.ListTasksRequest, tasks_pb2.ListTasksResponse)
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
