"""containerd's service Snapshots: writable root file systems of containers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from containerd.api import methods
from containerd.api.calls import CALL_S, LIST_S, RUNTIME_S, AsyncCalls
from containerd.api.errors import unless_missing
from containerd.api.records import Mount, SnapshotRecord
from proto.containerd import snapshots_pb2

GC_ROOT = "containerd.io/gc.root"
"""Label of an object that containerd's garbage collection keeps (containerd, metadata/gc.go)."""


class Snapshots:
    """Snapshots of a namespace. Removing a missing snapshot is no failure."""

    def __init__(self, call: AsyncCalls) -> None:
        self._call = call

    async def prepare(
        self, snapshotter: str, key: str, parent: str, labels: Mapping[str, str], lease: str = ""
    ) -> tuple[Mount, ...]:
        """Creates a writable snapshot, and returns the mounts that make its root.

        Args:
            snapshotter: name of containerd's snapshotter.
            key: name of the new snapshot.
            parent: key or chain id of the committed snapshot below.
            labels: labels of the snapshot.
            lease: id of the lease that protects the snapshot; empty for none.

        Raises:
            DriverError: ALREADY_EXISTS for a key in use, NOT_FOUND for a missing parent.
        """
        request = snapshots_pb2.PrepareSnapshotRequest(
            snapshotter=snapshotter, key=key, parent=parent, labels=dict(labels)
        )
        answer = await self._call(
            methods.SNAPSHOT_PREPARE,
            request,
            f"prepare snapshot {key}",
            timeout_s=CALL_S,
            lease=lease,
        )
        return tuple(
            Mount(type=m.type, source=m.source, options=tuple(m.options), target=m.target)
            for m in answer.mounts
        )

    async def exists(self, snapshotter: str, key: str) -> bool:
        """Returns True if a snapshot with the key or chain id exists."""
        return await self.get(snapshotter, key) is not None

    async def get(self, snapshotter: str, key: str) -> SnapshotRecord | None:
        """Returns the snapshot with the key or chain id; None if the snapshot is missing."""
        request = snapshots_pb2.StatSnapshotRequest(snapshotter=snapshotter, key=key)
        action = f"look up snapshot {key} of {snapshotter}"
        answer = await unless_missing(
            self._call(methods.SNAPSHOT_STAT, request, action, timeout_s=CALL_S)
        )
        return None if answer is None else _record(snapshotter, answer.info)

    async def remove(self, snapshotter: str, key: str) -> None:
        """Removes a snapshot."""
        request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=snapshotter, key=key)
        action = f"remove snapshot {key}"
        await unless_missing(
            self._call(methods.SNAPSHOT_REMOVE, request, action, timeout_s=RUNTIME_S)
        )

    async def list(self, snapshotter: str, *filters: str) -> tuple[SnapshotRecord, ...]:
        """Returns writable snapshots that match any filter; all without one."""
        request = snapshots_pb2.ListSnapshotsRequest(snapshotter=snapshotter, filters=filters)
        parts = await self._call.collect(
            methods.SNAPSHOT_LIST,
            request,
            f"list snapshots of {snapshotter}",
            LIST_S,
            lambda part: [
                _record(snapshotter, info)
                for info in part.info
                if info.kind == snapshots_pb2.ACTIVE
            ],
        )
        return tuple(itertools.chain.from_iterable(parts))


def _record(snapshotter: str, info: snapshots_pb2.Info) -> SnapshotRecord:
    return SnapshotRecord(
        snapshotter=snapshotter,
        key=info.name,
        labels=dict(info.labels),
        created_at_ns=info.created_at.ToNanoseconds(),
    )
