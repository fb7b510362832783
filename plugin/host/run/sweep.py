"""Removing what runs left that were killed: their networks, their allocations, their record.

`actors.orphans.reconciler` first removes what they left in containerd and in the state directory:
a task of a run that is still there needs its network and its files.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from actors.model.node import Node
from actors.model.ownership import LABEL_OWNER, RUN
from actors.orphans import peers
from actors.orphans.peers import Peer
from actors.orphans.reconciler import NoTasks, Outcome, Reconciler, SweepPolicy, SweepResult
from plugin.host.network import namespaces
from plugin.host.network.cni import BridgeNetwork
from plugin.host.run.allocdir import AllocDir
from plugin.host.run.record import AllocTrace, RunTrace, own_network, place, read
from proto.errors import DriverError


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing that was found: what, since when (of the epoch), what became of it and why."""

    kind: str
    name: str
    since: float
    outcome: Outcome
    why: str
    error: str = ""


def row(result: SweepResult) -> Row:
    """A finding of the reconciler."""
    resource = result.resource
    return Row(
        kind=str(resource.kind),
        name=resource.name,
        since=resource.created_at_s,
        outcome=result.outcome,
        why=result.reason,
        error=result.error,
    )


def dead(node: Node) -> list[Peer]:
    """Runs that are gone and left their record. Blocks, not for long."""
    found = peers.peers(node.state_dir)
    return [peer for peer in found if peer.name.startswith(RUN) and not peer.alive]


async def before_a_run(node: Node, tell: Callable[[str], None]) -> None:
    """Sweeps up after runs that were killed, and tells what it did; a failure stops nothing."""
    runs = await asyncio.to_thread(dead, node)
    if not runs:
        return
    names = {peer.name for peer in runs}
    try:
        # Without any time of grace, but for things that need none: those of dead runs.
        reconciler = Reconciler(node, NoTasks(), SweepPolicy(grace_s=float("inf")))
        results = [
            result
            for result in await reconciler.sweep_once()
            if result.resource.owner.owner in names
        ]
        rows = [*map(row, results), *await networks_and_files(node, dry_run=False)]
    except DriverError as error:
        tell(f"an earlier run was killed, and what it left stays for now: {error}")
        return
    for found in rows:
        failed = f": {found.error}" if found.error else ""
        tell(f"{found.outcome}, {found.why}: {found.kind} {found.name}{failed}")


async def networks_and_files(node: Node, *, dry_run: bool) -> list[Row]:
    """Returns what dead runs left outside of containerd.

    Raises:
        DriverError: containerd cannot be asked for their tasks.
    """
    rows: list[Row] = []
    for peer in await asyncio.to_thread(dead, node):
        trace = read(peer)
        if not peer.published:  # it was killed before it made anything
            if not dry_run:
                await asyncio.to_thread(peers.remove, node.state_dir, peer.name)
        elif trace is None:
            rows.append(_of_run(peer, Outcome.KEPT, "another release wrote its record"))
        elif hindrance := await _hindrance(node, trace, dry_run=dry_run):
            rows.append(_of_run(peer, Outcome.KEPT, hindrance))
        elif dry_run:
            rows += [*_parts(trace, Outcome.FOUND), _of_run(peer, Outcome.FOUND, _gone(trace))]
        else:
            rows += await asyncio.to_thread(_remove, node, peer, trace)
    return rows


async def _hindrance(node: Node, trace: RunTrace, *, dry_run: bool) -> str:
    """Why nothing of a run can be removed here and now; empty where it can."""
    if trace.place != place(node):
        address, namespace = trace.place
        return f"its tasks are in namespace {namespace} of containerd at {address}"
    if any(alloc.netns for alloc in trace.allocs) and trace.network != own_network():
        return "its networks are in another network namespace: sweep from there"
    tasks = await node.containerd.containers.list(f'labels."{LABEL_OWNER}"=="{trace.name}"')
    if tasks and not dry_run:
        return f"tasks of it are still there: {', '.join(task.id for task in tasks)}"
    return ""


def _remove(node: Node, peer: Peer, trace: RunTrace) -> list[Row]:
    """Blocks, for programs that make and remove networks."""
    with peers.seized(node.state_dir, peer.name) as ours:
        if not ours:
            return []  # somebody else is at it
        failures = dict(_undone(trace))
        rows = [_with(part, failures.get(part.name, "")) for part in _parts(trace, Outcome.REMOVED)]
        if any(failures.values()):
            return [*rows, _of_run(peer, Outcome.KEPT, "what it left is not wholly removed")]
        (node.state_dir / peers.DIRECTORY / peer.name).unlink(missing_ok=True)
    return [*rows, _of_run(peer, Outcome.REMOVED, _gone(trace))]


def _undone(trace: RunTrace) -> Iterator[tuple[str, str]]:
    """Undoes part by part; gives the name of each, with what failed."""
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
