"""List of the driver's objects: in containerd, in the state directory, and among the processes.

The functions change nothing. Labels and name together identify a container of the driver: a user's
container with copied labels does not count, and a name alone does not count either.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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
from actors.processes import worker_link
from containerd.api.records import Status
from proto.errors import DriverError
from proto.exhaustion import advice
from workers import private_directory

if TYPE_CHECKING:
    from actors.model.node import Node
    from containerd.api.records import ContainerRecord

_S = 1e-9
_HAS_TASK_ID = f'labels."{LABEL_TASK_ID}"'
_HAS_MAKER = f'labels."{LABEL_MAKER}"'
_EXEC = "exec-*"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Containers:
    """Containers of the namespace by id: all containers, and the driver's containers."""

    all_ids: frozenset[str]
    of_driver: Mapping[str, ContainerRecord]


async def take(node: Node, tracked: frozenset[str]) -> list[Resource]:
    """Lists all objects of the driver. An object of an existing container is not listed separately.

    Args:
        node: containerd and the state directory.
        tracked: containers of this process's tasks. Only dead exec sessions are listed for these.

    Raises:
        DriverError: containerd does not answer, so no list is complete. Code DENIED: another user
            can change the state directory.
    """
    await asyncio.to_thread(private_directory.check, str(node.state_dir))
    containers = await _containers(node)
    resources = [
        await container(node, record)
        for name, record in containers.of_driver.items()
        if name not in tracked
    ]
    resources += await _snapshots(node, containers)
    resources += await _leases(node, containers)
    for directory in await asyncio.to_thread(_directories, node.state_dir / "tasks"):
        if directory.name in tracked:
            resources += await asyncio.to_thread(_dead_sessions, directory)
        elif directory.name not in containers.all_ids:
            resources += await _directory(node, directory)
    resources += await asyncio.to_thread(mounts, node)
    strays = await asyncio.to_thread(stray_workers.find, node)
    resources += [worker for worker in strays if worker.container not in containers.all_ids]
    return resources


async def container(node: Node, record: ContainerRecord) -> Resource:
    """Returns the present state of a container of the driver.

    Raises:
        DriverError: containerd does not answer.
    """
    task = await node.containerd.tasks.get(record.id)
    running = task is not None and task.status is not Status.STOPPED
    directory = task_directory(node.state_dir, record.id)
    return Resource(
        kind=ResourceKind.CONTAINER,
        name=record.id,
        container=record.id,
        owner=read_labels(record.labels),
        created_at_s=record.created_at_ns * _S,
        running=running,
        watched=await _peers(directory) not in {None, 0},
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


async def _containers(node: Node) -> _Containers:
    records = await node.containerd.containers.list()
    of_driver = {
        record.id: record for record in records if _is_of_driver(node, record.id, record.labels)
    }
    return _Containers(all_ids=frozenset(record.id for record in records), of_driver=of_driver)


async def _snapshots(node: Node, containers: _Containers) -> list[Resource]:
    """Lists snapshots without a container."""
    resources: list[Resource] = []
    for snapshotter in await node.containerd.snapshotters():
        for snapshot in await node.containerd.snapshots.list(snapshotter, _HAS_TASK_ID):
            container_id = snapshot.key.removesuffix(identifiers.snapshot_key(""))
            if container_id in containers.all_ids:
                continue
            if not _is_of_driver(node, container_id, snapshot.labels):
                continue
            resource = Resource(
                kind=ResourceKind.SNAPSHOT,
                name=snapshot.key,
                container=container_id,
                owner=read_labels(snapshot.labels),
                created_at_s=snapshot.created_at_ns * _S,
                snapshotter=snapshotter,
                task_id=snapshot.labels.get(LABEL_TASK_ID, ""),
            )
            resources.append(resource)
    return resources


async def _leases(node: Node, containers: _Containers) -> list[Resource]:
    """Lists leases without a container, and leases of pulls."""
    resources: list[Resource] = []
    for lease in await node.containerd.leases.list(_HAS_TASK_ID, _HAS_MAKER):
        container_id = lease.id.removeprefix(identifiers.lease_id(""))
        # A task may have the name "pull".
        named = lease.id.startswith(identifiers.PULL_LEASE)
        pull = named and LABEL_TASK_ID not in lease.labels
        if container_id in containers.all_ids:
            continue
        if not (pull or _is_of_driver(node, container_id, lease.labels)):
            continue
        resource = Resource(
            kind=ResourceKind.LEASE,
            name=lease.id,
            container="" if pull else container_id,
            owner=read_labels(lease.labels),
            created_at_s=lease.created_at_ns * _S,
            task_id=lease.labels.get(LABEL_TASK_ID, ""),
        )
        resources.append(resource)
    return resources


async def _directory(node: Node, directory: Path) -> list[Resource]:
    """Lists a state directory without a container, or the worker in the directory."""
    owner = await asyncio.to_thread(read_owner, node, directory)
    if owner is None:
        return []
    peers = await _peers(directory)
    resource = Resource(
        kind=ResourceKind.DIRECTORY,
        name=str(directory),
        container=directory.name,
        owner=owner,
        created_at_s=_changed_at_s(directory),
    )
    if peers is not None:
        resource = replace(resource, kind=ResourceKind.WORKER, watched=peers > 0)
    return [resource]


async def _peers(directory: Path) -> int | None:
    """Returns the number of other connections to the worker; None without a worker.

    The number is 1 for a worker that does not report the number.
    """
    try:
        link = await worker_link.connect(directory)
    except OSError as error:
        return 1 if advice(error) else None  # a worker exists, but does not accept
    try:
        peers = (await link.request("hello")).get("peers")
    except DriverError:
        return 1
    finally:
        await link.close()
    return peers if isinstance(peers, int) else 1


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
        for session in directory.glob(_EXEC)
        if not _is_locked(session)
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
