"""Objects of a real containerd in one namespace, by its API: `ctr` costs a process per list."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from containerd.api import methods
from containerd.api.methods import Method
from containerd.pull.calls import SyncCalls
from proto.containerd import containers_pb2, leases_pb2, snapshots_pb2, tasks_pb2
from proto.errors import DriverError

_SNAPSHOTTER = "overlayfs"
_ANSWER_S = 60.0


class Metadata:
    """A connection to containerd; `with Metadata(...) as metadata` closes the connection.

    Args:
        address: containerd's socket.
        namespace: the namespace to list.
        bundles: the directory of containerd's bundles, which outlive their tasks.
    """

    def __init__(self, address: str, namespace: str, bundles: Path) -> None:
        self._calls = SyncCalls(address, namespace, "")
        self._bundles = bundles

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._calls.close()

    def containers(self) -> list[str]:
        """Lists the ids of the containers."""
        request = containers_pb2.ListContainersRequest()
        found = self._calls.stream(methods.CONTAINER_LIST, request, "list containers")
        return [answer.container.id for answer in found]

    def tasks(self) -> list[str]:
        """Lists the ids of the containers that have a task."""
        names = [entry.name for entry in self._bundles.iterdir()] if self._bundles.exists() else []
        return [name for name in names if self._has_task(name)]

    def leases(self) -> list[str]:
        """Lists the ids of the leases."""
        return [one.id for one in self._ask(methods.LEASE_LIST, leases_pb2.ListRequest()).leases]

    def snapshots(self) -> list[str]:
        """Lists the keys of the snapshots that are no layer of an image."""
        request = snapshots_pb2.ListSnapshotsRequest(snapshotter=_SNAPSHOTTER)
        found = self._calls.stream(methods.SNAPSHOT_LIST, request, "list snapshots")
        return [
            info.name
            for answer in found
            for info in answer.info
            if info.kind != snapshots_pb2.COMMITTED
        ]

    def _has_task(self, container: str) -> bool:
        """Checks whether containerd has a task; its list omits a task without a shim."""
        with contextlib.suppress(DriverError):
            self._ask(methods.TASK_GET, tasks_pb2.GetRequest(container_id=container))
            return True
        return False

    def _ask(self, method: Method[Any, Any], request: Any) -> Any:
        return self._calls(method, request, method.path, _ANSWER_S)
