"""What there is of tasks: in containerd, in the state directory, and which workers answer there.

Only looks. A container counts by its labels and by its name together: a copy of the labels on a
container of somebody's own makes it none of ours, and neither does a name alone.
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
from actors.orphans.judgement import Kind, Thing
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
class _Books:
    """Containers by id: all there are, and those that are the driver's."""

    everybodys: frozenset[str]
    ours: Mapping[str, ContainerRecord]


async def take(node: Node, tracked: frozenset[str]) -> list[Thing]:
    """Everything that looks like this driver's, but for the insides of tasks that are tracked.

    Of a container that is there, what belongs to it is not told apart.

    Raises:
        DriverError: containerd cannot be asked; then nothing can be told of anything. Code DENIED;
            another user can change the state directory.
    """
    await asyncio.to_thread(private_directory.check, str(node.state_dir))
    books = await _books(node)
    found = [
        await container(node, record) for name, record in books.ours.items() if name not in tracked
    ]
    found += await _snapshots(node, books)
    found += await _leases(node, books)
    for directory in await asyncio.to_thread(_directories, node.state_dir / "tasks"):
        if directory.name in tracked:
            found += await asyncio.to_thread(_dead_sessions, directory)
        elif directory.name not in books.everybodys:
            found += await _directory(node, directory)
    found += await asyncio.to_thread(mounts, node)
    lost = await asyncio.to_thread(stray_workers.find, node)
    found += [worker for worker in lost if worker.container not in books.everybodys]
    return found


async def container(node: Node, record: ContainerRecord) -> Thing:
    """A container that is ours, as it is now.

    Raises:
        DriverError: containerd cannot be asked.
    """
    task = await node.containerd.tasks.get(record.id)
    running = task is not None and task.status is not Status.STOPPED
    directory = task_directory(node.state_dir, record.id)
    return Thing(
        kind=Kind.CONTAINER,
        name=record.id,
        container=record.id,
        mark=read_labels(record.labels),
        since=record.created_at_ns * _S,
        running=running,
        watched=await _peers(directory) not in {None, 0},
        snapshotter=record.snapshotter,
        task_id=record.labels.get(LABEL_TASK_ID, ""),
    )


def is_ours(node: Node, id: str, labels: Mapping[str, str]) -> bool:
    """Returns whether labels and id say the same, as on a container that a start has made."""
    alloc_id = labels.get(LABEL_ALLOC_ID, "")
    name = labels.get(LABEL_TASK_NAME, "")
    task_id = labels.get(LABEL_TASK_ID, "")
    return (
        bool(alloc_id and name)
        and task_id.startswith(f"{alloc_id}/{name}/")
        and id == identifiers.container_id(alloc_id, name, cgroup_v2=node.cgroup_v2)
    )


async def _books(node: Node) -> _Books:
    records = await node.containerd.containers.list()
    ours = {record.id: record for record in records if is_ours(node, record.id, record.labels)}
    return _Books(everybodys=frozenset(record.id for record in records), ours=ours)


async def _snapshots(node: Node, books: _Books) -> list[Thing]:
    """Those without their container."""
    found: list[Thing] = []
    for snapshotter in await node.containerd.snapshotters():
        for snapshot in await node.containerd.snapshots.list(snapshotter, _HAS_TASK_ID):
            owner = snapshot.key.removesuffix(identifiers.snapshot_key(""))
            if owner in books.everybodys or not is_ours(node, owner, snapshot.labels):
                continue
            thing = Thing(
                kind=Kind.SNAPSHOT,
                name=snapshot.key,
                container=owner,
                mark=read_labels(snapshot.labels),
                since=snapshot.created_at_ns * _S,
                snapshotter=snapshotter,
                task_id=snapshot.labels.get(LABEL_TASK_ID, ""),
            )
            found.append(thing)
    return found


async def _leases(node: Node, books: _Books) -> list[Thing]:
    """Those without their container, and those of pulls."""
    found: list[Thing] = []
    for lease in await node.containerd.leases.list(_HAS_TASK_ID, _HAS_MAKER):
        owner = lease.id.removeprefix(identifiers.lease_id(""))
        # A task may be called "pull".
        named = lease.id.startswith(identifiers.PULL_LEASE)
        pull = named and LABEL_TASK_ID not in lease.labels
        if owner in books.everybodys or not (pull or is_ours(node, owner, lease.labels)):
            continue
        thing = Thing(
            kind=Kind.LEASE,
            name=lease.id,
            container="" if pull else owner,
            mark=read_labels(lease.labels),
            since=lease.created_at_ns * _S,
            task_id=lease.labels.get(LABEL_TASK_ID, ""),
        )
        found.append(thing)
    return found


async def _directory(node: Node, directory: Path) -> list[Thing]:
    """A state directory without a container, or the worker that lives in it."""
    made = await asyncio.to_thread(read_owner, node, directory)
    if made is None:
        return []
    peers = await _peers(directory)
    thing = Thing(
        kind=Kind.DIRECTORY,
        name=str(directory),
        container=directory.name,
        mark=made,
        since=_changed(directory),
    )
    if peers is not None:
        thing = replace(thing, kind=Kind.WORKER, watched=peers > 0)
    return [thing]


async def _peers(directory: Path) -> int | None:
    """How many others are connected to the worker; None where there is no worker.

    A worker that does not say counts as one that somebody is connected to.
    """
    try:
        link = await worker_link.connect(directory)
    except OSError as error:
        return 1 if advice(error) else None  # too many ask it, or we may ask nobody
    try:
        peers = (await link.request("hello")).get("peers")
    except DriverError:
        return 1
    finally:
        await link.close()
    return peers if isinstance(peers, int) else 1


def _dead_sessions(directory: Path) -> list[Thing]:
    """Exec sessions of a task whose plugin is gone: each holds a lock on its directory."""
    return [
        Thing(
            kind=Kind.EXEC,
            name=session.name,
            container=directory.name,
            mark=OwnerLabels(),
            since=_changed(session),
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


def mounts(node: Node) -> list[Thing]:
    """Sources of mounts that starts hold, or have held. Blocks."""
    found: list[Thing] = []
    for directory in _directories(pins_directory(node.state_dir, "x").parent):
        task = task_directory(node.state_dir, directory.name)
        made = read_owner(node, task)
        if made is not None:
            thing = Thing(
                kind=Kind.MOUNTS,
                name=str(directory),
                container=directory.name,
                mark=made,
                since=_changed(directory),
            )
            found.append(thing)
    return found


def _directories(parent: Path) -> list[Path]:
    return sorted(_real(parent))


def _real(parent: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            if entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)


def _changed(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.lstat().st_mtime
    return 0.0
