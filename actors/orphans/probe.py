"""Probe of the processes behind listed objects: containerd's tasks, and the workers.

A sweep probes only objects that seem to be orphans, and `gc` also objects of unknown owners. A
probe costs a connection to the worker, so a number of probes runs together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from actors.files.state_dir import task_directory
from actors.orphans.decision import Resource, ResourceKind
from actors.processes import worker_link
from containerd.api.records import Status
from proto.errors import DriverError
from proto.exhaustion import advice

if TYPE_CHECKING:
    from actors.model.node import Node
    from containerd.api.records import TaskRecord

_AT_ONCE = 16
# A list makes containerd ask every shim of the namespace, also the shims of live tasks.
_FEW = 16
_PROBED = frozenset({ResourceKind.CONTAINER, ResourceKind.DIRECTORY})


async def probe(node: Node, resources: Sequence[Resource]) -> list[Resource]:
    """Returns the objects with the states of their processes: `running` and `watched`.

    A state directory with a worker becomes the worker. The order stays.

    Args:
        node: containerd and the state directory.
        resources: objects from `inventory`.

    Raises:
        DriverError: containerd does not answer.
    """
    found = list(resources)
    left = iter([place for place, each in enumerate(found) if each.kind in _PROBED])
    containers = [each.container for each in found if each.kind is ResourceKind.CONTAINER]
    tasks = await _tasks(node, containers)

    async def some(places: Iterator[int]) -> None:
        for place in places:
            found[place] = await _probe(node, found[place], tasks)

    for outcome in await asyncio.gather(
        *(some(left) for _ in range(_AT_ONCE)), return_exceptions=True
    ):
        if outcome is not None:
            raise outcome
    return found


async def _tasks(node: Node, containers: Collection[str]) -> dict[str, TaskRecord]:
    """Returns the tasks by container if a list costs less than a call for each container."""
    if len(containers) <= _FEW:
        return {}
    return {task.id: task for task in await node.containerd.tasks.list()}


async def _probe(node: Node, resource: Resource, tasks: dict[str, TaskRecord]) -> Resource:
    peers = await _peers(task_directory(node.state_dir, resource.container))
    if resource.kind is ResourceKind.DIRECTORY:
        if peers is None:
            return resource
        return replace(resource, kind=ResourceKind.WORKER, watched=peers > 0)
    # The list can omit a task whose shim does not answer; `get` then gives the status UNKNOWN.
    task = tasks.get(resource.container) or await node.containerd.tasks.get(resource.container)
    running = task is not None and task.status is not Status.STOPPED
    return replace(resource, running=running, watched=peers not in {None, 0})


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
