"""Sweep after killed runs: removes networks, allocation directories and records.

`actors.orphans.reconciler` must first remove the run's objects in containerd and in the state
directory: a task that still exists needs its network and its files.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from actors.model.node import Node
from actors.model.ownership import LABEL_OWNER
from actors.orphans import peers
from actors.orphans.peers import Peer
from actors.orphans.reconciler import NoTasks, Outcome, Reconciler, SweepPolicy, SweepResult
from plugin.host.network import namespaces
from plugin.host.network.cni import BridgeNetwork
from plugin.host.run.allocdir import AllocDir
from plugin.host.run.record import (
    AllocTrace,
    RunTrace,
    containerd_of,
    dead_runs,
    own_network,
    read_trace,
)
from proto.errors import DriverError
from proto.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An object of a search, in the form of `gc --json`.

    Attributes:
        kind: kind of the object, such as "container".
        name: name of the object.
        since: seconds since the epoch.
        outcome: result for the object.
        why: reason of the outcome.
        error: failure of the removal, if any.
    """

    kind: str
    name: str
    since: float
    outcome: Outcome
    why: str
    error: str = ""


def as_row(result: SweepResult) -> Row:
    """Converts a result of the reconciler."""
    resource = result.resource
    return Row(
        kind=str(resource.kind),
        name=resource.name,
        since=resource.created_at_s,
        outcome=result.outcome,
        why=result.reason,
        error=result.error,
    )


async def before_a_run(node: Node, note: Callable[[str], None]) -> None:
    """Removes the objects of killed runs; a failure does not stop the new run.

    Args:
        node: the node of the new run.
        note: shows a line for each object, or the failure.
    """
    runs = await asyncio.to_thread(dead_runs, node)
    if not runs:
        return
    names = {peer.name for peer in runs}
    try:
        # A grace period without end: only objects of dead runs, which need no grace, are removed.
        reconciler = Reconciler(node, NoTasks(), SweepPolicy(grace_s=float("inf")))
        results = [
            result
            for result in await reconciler.sweep_once()
            if result.resource.owner.owner in names
        ]
        rows = [*map(as_row, results), *await networks_and_files(node, dry_run=False)]
    except DriverError as error:
        note(f"objects of a killed run stay for now: {error}")
        return
    for swept in rows:
        failure = f": {swept.error}" if swept.error else ""
        note(f"{swept.outcome}, {swept.why}: {swept.kind} {swept.name}{failure}")


async def networks_and_files(node: Node, *, dry_run: bool) -> list[Row]:
    """Removes the objects of dead runs outside of containerd, and returns a row for each.

    Args:
        node: the node; its state directory has the records.
        dry_run: True only returns the rows.

    Raises:
        DriverError: containerd cannot list the tasks of the runs.
    """
    rows: list[Row] = []
    for peer in await asyncio.to_thread(dead_runs, node):
        trace = read_trace(peer)
        if not peer.published:  # killed before its first object
            if not dry_run:
                await asyncio.to_thread(peers.remove, node.state_dir, peer.name)
        elif trace is None:
            rows.append(_of_run(peer, Outcome.KEPT, "the record is in the form of another release"))
        elif hindrance := await _hindrance(node, trace, dry_run=dry_run):
            rows.append(_of_run(peer, Outcome.KEPT, hindrance))
        elif dry_run:
            rows += [*_parts(trace, Outcome.FOUND), _of_run(peer, Outcome.FOUND, _gone(trace))]
        else:
            rows += await asyncio.to_thread(_remove, node, peer, trace)
    return rows


async def _hindrance(node: Node, trace: RunTrace, *, dry_run: bool) -> str:
    """Returns the reason against the removal of a run's objects; empty if removal is possible."""
    if trace.containerd != containerd_of(node):
        address, namespace = trace.containerd
        return f"its tasks are in namespace {namespace} of containerd at {address}"
    if any(alloc.netns for alloc in trace.allocs) and trace.network != own_network():
        return "its networks are in another network namespace: run gc in that namespace"
    tasks = await node.containerd.containers.list(f'labels."{LABEL_OWNER}"=="{trace.name}"')
    if tasks and not dry_run:
        return f"its tasks still exist: {', '.join(task.id for task in tasks)}"
    return ""


def _remove(node: Node, peer: Peer, trace: RunTrace) -> list[Row]:
    """Removes networks, directories and the record of a run. Blocks during CNI programs."""
    with peers.seized(node.state_dir, peer.name) as locked:
        if not locked:
            return []  # another process sweeps the run
        failures = dict(_undone(trace))
        rows = [_with(part, failures.get(part.name, "")) for part in _parts(trace, Outcome.REMOVED)]
        if any(failures.values()):
            return [*rows, _of_run(peer, Outcome.KEPT, "its objects are not wholly removed")]
        (node.state_dir / peers.DIRECTORY / peer.name).unlink(missing_ok=True)
    return [*rows, _of_run(peer, Outcome.REMOVED, _gone(trace))]


def _undone(trace: RunTrace) -> Iterator[tuple[str, str]]:
    """Removes each object; yields its name and the failure, which is empty after a success."""
    bridge = BridgeNetwork(trace.cni)
    for alloc in trace.allocs:
        if alloc.netns:
            yield alloc.id, "; ".join(_network(bridge, alloc))
        if not trace.keep:
            yield str(trace.root / alloc.id), AllocDir(trace.root, alloc.id).remove()
    if trace.own_root:
        with contextlib.suppress(OSError):
            trace.root.rmdir()


def _network(bridge: BridgeNetwork, alloc: AllocTrace) -> Iterator[str]:
    try:
        if alloc.bridge:
            bridge.resume(alloc.id, alloc.bridge)
            yield from map(str, bridge.delete(alloc.id, alloc.netns, alloc.ports))
        namespaces.remove([alloc.id])
    except (DriverError, OSError) as error:
        yield str(error)


def _parts(trace: RunTrace, outcome: Outcome) -> Iterator[Row]:
    why = _gone(trace)
    for alloc in trace.allocs:
        if alloc.netns:
            yield Row(kind="network", name=alloc.id, since=trace.since, outcome=outcome, why=why)
        if not trace.keep:
            path = str(trace.root / alloc.id)
            yield Row(kind="allocation", name=path, since=trace.since, outcome=outcome, why=why)


def _with(part: Row, error: str) -> Row:
    return replace(part, outcome=Outcome.FAILED, error=error) if error else part


def _gone(trace: RunTrace) -> str:
    return f"its `containerd-driver run` (pid {trace.pid}) is gone"


def _of_run(peer: Peer, outcome: Outcome, why: str) -> Row:
    return Row(kind="run", name=peer.name, since=peer.since, outcome=outcome, why=why)
