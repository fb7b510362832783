"""List of the driver's objects: in containerd, in the state directory, and among the processes.

The functions change nothing. Labels and name together identify a container of the driver: a user's
container with copied labels does not count, and a name alone does not count either.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from actors.files.state_dir import pins_directory, task_directory
from actors.lifecycle.directory import read_owner
from actors.model import identifiers
from actors.model.ownership import (
    LABEL_ALLOC_ID,
    LABEL_MAKER,
    LABEL_TASK_ID,
    LABEL_TASK_NAME,
    OwnerLabels,
    read_labels,
)
from actors.orphans import stray_workers
from actors.orphans.decision import Resource, ResourceKind
from proto.values import dataclass
from workers import private_directory

if TYPE_CHECKING:
    from actors.model.node import Node
    from containerd.api.records import ContainerRecord, LeaseRecord, SnapshotRecord

_S = 1e-9
_HAS_TASK_ID = f'labels."{LABEL_TASK_ID}"'
_HAS_MAKER = f'labels."{LABEL_MAKER}"'
_EXEC = "exec-"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """containerd's lists: all containers, and the snapshots and leases of the driver."""

    containers: Sequence[ContainerRecord]
    snapshots: Sequence[SnapshotRecord]
    leases: Sequence[LeaseRecord]


async def take(node: Node, tracked: frozenset[str]) -> list[Resource]:
    """Lists all objects of the driver. An object of an existing container is not listed separately.

    The number of calls and threads does not depend on the number of tasks. `probe` adds the states
    of processes.

    Args:
        node: containerd and the state directory.
        tracked: containers of this process's tasks. Only dead exec sessions are listed for these.

    Raises:
        DriverError: containerd does not answer, so no list is complete. Code DENIED: another user
            can change the state directory.
    """
    await asyncio.to_thread(private_directory.check, str(node.state_dir))
    containerd = node.containerd
    listed = _Listed(
        containers=await containerd.containers.list(),
        snapshots=[
            snapshot
            for snapshotter in await containerd.snapshotters()
            for snapshot in await containerd.snapshots.list(snapshotter, _HAS_TASK_ID)
        ],
        leases=await containerd.leases.list(_HAS_TASK_ID, _HAS_MAKER),
    )
    return await asyncio.to_thread(_all, node, tracked, listed)


def _all(node: Node, tracked: frozenset[str], listed: _Listed) -> list[Resource]:
    """Adds the objects on the disk and in the process table. Blocks."""
    present = frozenset(record.id for record in listed.containers)
    resources = [
        _container(record)
        for record in listed.containers
        if record.id not in tracked and _is_of_driver(node, record.id, record.labels)
    ]
    resources += _snapshots(node, listed.snapshots, present)
    resources += _leases(node, listed.leases, present)
    directories = _directories(node.state_dir / "tasks")
    for directory in directories:
        if directory.name in tracked:
            resources += _dead_sessions(directory)
    known = tracked | present
    resources += _owned(node, (each for each in directories if each.name not in known))
    resources += mounts(node)
    strays = stray_workers.find(node)
    return resources + [worker for worker in strays if worker.container not in present]


async def of_container(node: Node, container_id: str) -> list[Resource]:
    """Lists the objects of one container id, as `take` does. The number of calls is constant.

    Raises:
        DriverError: containerd does not answer.
    """
    record = await node.containerd.containers.get(container_id)
    if record is not None:
        found = _is_of_driver(node, record.id, record.labels)
        return [_container(record)] if found else []
    key = identifiers.snapshot_key(container_id)
    snapshotters = await node.containerd.snapshotters()
    snapshots = [await node.containerd.snapshots.get(name, key) for name in snapshotters]
    leases = await node.containerd.leases.list(f'id=="{identifiers.lease_id(container_id)}"')
    directory = task_directory(node.state_dir, container_id)
    return [
        *_snapshots(node, filter(None, snapshots), frozenset()),
        *_leases(node, leases, frozenset()),
        *await asyncio.to_thread(lambda: [*_owned(node, filter(Path.is_dir, [directory]))]),
    ]


def _container(record: ContainerRecord) -> Resource:
    return Resource(
        kind=ResourceKind.CONTAINER,
        name=record.id,
        container=record.id,
        owner=read_labels(record.labels),
        created_at_s=record.created_at_ns * _S,
        snapshotter=record.snapshotter,
        task_id=record.labels.get(LABEL_TASK_ID, ""),
    )


def _is_of_driver(node: Node, container_id: str, labels: Mapping[str, str]) -> bool:
    """Returns True if labels and id name the same task, as on a container of a start."""
    alloc_id = labels.get(LABEL_ALLOC_ID, "")
    name = labels.get(LABEL_TASK_NAME, "")
    task_id = labels.get(LABEL_TASK_ID, "")
    return (
        bool(alloc_id and name)
        and task_id.startswith(f"{alloc_id}/{name}/")
        and container_id == identifiers.container_id(alloc_id, name, cgroup_v2=node.cgroup_v2)
    )


def _snapshots(
    node: Node, snapshots: Iterable[SnapshotRecord], containers: frozenset[str]
) -> Iterator[Resource]:
    """Yields the snapshots without a container."""
    for snapshot in snapshots:
        container_id = snapshot.key.removesuffix(identifiers.snapshot_key(""))
        if container_id in containers:
            continue
        if _is_of_driver(node, container_id, snapshot.labels):
            yield Resource(
                kind=ResourceKind.SNAPSHOT,
                name=snapshot.key,
                container=container_id,
                owner=read_labels(snapshot.labels),
                created_at_s=snapshot.created_at_ns * _S,
                snapshotter=snapshot.snapshotter,
                task_id=snapshot.labels.get(LABEL_TASK_ID, ""),
            )


def _leases(
    node: Node, leases: Iterable[LeaseRecord], containers: frozenset[str]
) -> Iterator[Resource]:
    """Yields the leases without a container, and leases of pulls."""
    for lease in leases:
        container_id = lease.id.removeprefix(identifiers.lease_id(""))
        # A task may have the name "pull".
        named = lease.id.startswith(identifiers.PULL_LEASE)
        pull = named and LABEL_TASK_ID not in lease.labels
        if container_id in containers:
            continue
        if pull or _is_of_driver(node, container_id, lease.labels):
            yield Resource(
                kind=ResourceKind.LEASE,
                name=lease.id,
                container="" if pull else container_id,
                owner=read_labels(lease.labels),
                created_at_s=lease.created_at_ns * _S,
                task_id=lease.labels.get(LABEL_TASK_ID, ""),
            )


def _owned(node: Node, directories: Iterable[Path]) -> Iterator[Resource]:
    """Yields the state directories of this containerd. Blocks."""
    for directory in directories:
        owner = read_owner(node, directory)
        if owner is not None:
            yield Resource(
                kind=ResourceKind.DIRECTORY,
                name=str(directory),
                container=directory.name,
                owner=owner,
                created_at_s=_changed_at_s(directory),
            )


def _dead_sessions(directory: Path) -> list[Resource]:
    """Lists exec sessions whose plugin has ended: a live session has a lock on the directory."""
    return [
        Resource(
            kind=ResourceKind.EXEC,
            name=session.name,
            container=directory.name,
            owner=OwnerLabels(),
            created_at_s=_changed_at_s(session),
        )
        for session in _real_directories(directory)
        if session.name.startswith(_EXEC) and not _is_locked(session)
    ]


def _is_locked(directory: Path) -> bool:
    try:
        file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def mounts(node: Node) -> list[Resource]:
    """Lists the pinned sources of mounts of present and earlier starts. Blocks."""
    resources: list[Resource] = []
    for directory in _directories(pins_directory(node.state_dir, "x").parent):
        task = task_directory(node.state_dir, directory.name)
        owner = read_owner(node, task)
        if owner is not None:
            resource = Resource(
                kind=ResourceKind.MOUNTS,
                name=str(directory),
                container=directory.name,
                owner=owner,
                created_at_s=_changed_at_s(directory),
            )
            resources.append(resource)
    return resources


def _directories(parent: Path) -> list[Path]:
    return sorted(_real_directories(parent))


def _real_directories(parent: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            if entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)


def _changed_at_s(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.lstat().st_mtime
    return 0.0
