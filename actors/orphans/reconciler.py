"""Reconciler: finds objects without a live owner, and removes the objects after a grace time.

    list (inventory) → decide (decision) → wait for the grace time → claim → list again → remove

All objects of a container are removed together: while one object is needed or too young, all
objects stay. A claim delays a start of the same task until the removal is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from actors.files import tree_removal
from actors.files.state_dir import pins_directory, task_directory
from actors.lifecycle import teardown
from actors.model import identifiers
from actors.model.log_keys import elapsed_ms, keys_of_id
from actors.orphans import inventory, peers, stray_workers
from actors.orphans.decision import (
    Decision,
    Facts,
    FirstSeen,
    OwnerState,
    Resource,
    ResourceKind,
    decide,
)
from actors.orphans.probe import probe
from actors.provision import mount_sources
from proto.errors import DriverError

if TYPE_CHECKING:
    from pathlib import Path

    from actors.model.node import Node

_log = logging.getLogger(__name__)
_SESSION_S = 5.0
# Objects of these kinds are removed alone, independent of other objects of the task.
_ALONE = frozenset({ResourceKind.MOUNTS, ResourceKind.EXEC})


class TaskRegister(Protocol):
    """The tasks of this process."""

    async def tracked(self) -> frozenset[str]:
        """Returns the ids of the containers of all tasks."""
        ...

    async def claim(self, container: str) -> bool:
        """Delays starts of a container until `release`. False without a claim if a task has it."""
        ...

    def release(self, container: str) -> None:
        """Ends a claim."""
        ...


class NoTasks(TaskRegister):
    """Register of a process without tasks: a command."""

    async def tracked(self) -> frozenset[str]:
        """Returns no id."""
        return frozenset()

    async def claim(self, container: str) -> bool:  # noqa: ARG002 - see TaskRegister
        """Grants every claim."""
        return True

    def release(self, container: str) -> None:
        """Does nothing."""


class Outcome(StrEnum):
    """Results for an object. People read the values."""

    KEPT = "kept"
    WAITS = "waits"
    FOUND = "orphan"
    REMOVED = "removed"
    FAILED = "not removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPolicy:
    """Settings of sweeps.

    Attributes:
        grace_s: seconds that an object must stay an orphan before the removal.
        dry_run: True removes no object.
        given_up: agents that will not come back, according to the operator.
    """

    grace_s: float
    dry_run: bool = False
    given_up: frozenset[str] = frozenset()


@dataclass(slots=True, kw_only=True)
class SweepResult:
    """An object without a live owner: reason and outcome. `error` is set for FAILED only."""

    resource: Resource
    reason: str
    certain: bool = False
    outcome: Outcome = Outcome.KEPT
    error: str = ""


class Reconciler:
    """Sweeps of a plugin's configuration or of a command. Belongs to the event loop.

    Args:
        node: containerd and the state directory.
        register: the tasks of this process.
        policy: settings of the sweeps.
        nodes: returns the names of the agents that have given tasks to this process.
        now: the monotonic clock, in seconds.
    """

    def __init__(
        self,
        node: Node,
        register: TaskRegister,
        policy: SweepPolicy,
        *,
        nodes: Callable[[], Iterable[str]] = tuple,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._register = register
        self._policy = policy
        self._nodes = nodes
        self._now = now
        self._first_seen = FirstSeen(policy.grace_s)

    async def run(self, period_s: float) -> None:
        """Sweeps for ever. The first sweep is delayed, because an agent recovers its tasks first.

        Args:
            period_s: seconds between two sweeps.
        """
        await asyncio.sleep(max(period_s, self._policy.grace_s))
        while True:
            begun = time.monotonic()
            try:
                results = await self.sweep()
            except DriverError as error:
                _log.info("orphan sweep skipped", extra={"reason": str(error)})
            except Exception:  # noqa: BLE001 - the next sweep may succeed
                _log.exception("orphan sweep failed")
            else:
                keys = {"without_owner": len(results), "elapsed_ms": elapsed_ms(begun)}
                _log.debug("orphan sweep completed", extra=keys)
            await asyncio.sleep(period_s)

    async def sweep(self) -> list[SweepResult]:
        """Removes the objects that have been orphans for the grace time.

        Raises:
            DriverError: containerd does not answer; no object was removed.
        """
        results = await self._inspect({OwnerState.ORPHAN})
        orphans = [result for result in results if result.outcome is not Outcome.KEPT]
        new = self._first_seen.update((result.resource for result in orphans), self._now())
        await asyncio.to_thread(self._log_found, orphans, {each.key for each in new})
        due = {result.resource.key for result in orphans if self._is_due(result)}
        await self._remove(results, lambda result: result.resource.key in due)
        return results

    def _log_found(
        self, orphans: Iterable[SweepResult], new: Collection[tuple[str, str, str]]
    ) -> None:
        for result in orphans:
            if result.resource.key in new:
                keys = {**_keys(result.resource), "reason": result.reason}
                _log.warning("orphan found", extra={**keys, "dry_run": self._policy.dry_run})

    async def sweep_once(self) -> list[SweepResult]:
        """Removes old orphans at once, for a process that ends: the object's age is the grace time.

        Raises:
            DriverError: containerd does not answer; no object was removed.
        """
        results = await self.inspect()
        grace_s = self._policy.grace_s
        await self._remove(
            results, lambda result: result.certain or _age_s(result.resource) >= grace_s
        )
        return results

    async def inspect(self) -> list[SweepResult]:
        """Returns the objects without a live owner: orphans, and objects of unknown owners.

        Raises:
            DriverError: containerd does not answer.
        """
        return await self._inspect({OwnerState.ORPHAN, OwnerState.KEPT})

    async def _inspect(self, probed: Collection[OwnerState]) -> list[SweepResult]:
        """Returns the objects without a live owner; probes the processes of objects in a state."""
        before = await self._register.tracked()
        resources = await inventory.take(self._node, before)
        # Asked again: a task that came during the listing is no orphan, and a task that went is
        # being removed.
        tracked = before | await self._register.tracked()
        facts = await asyncio.to_thread(self._facts, tracked)
        decisions = await asyncio.to_thread(_decided, resources, facts)
        chosen = [each for each, decision in decisions if decision.state in probed]
        others = [pair for pair in decisions if pair[1].state not in probed]
        states = await probe(self._node, chosen)
        decisions = others + await asyncio.to_thread(_decided, states, facts)
        return await asyncio.to_thread(_results, decisions)

    def _facts(self, tracked: frozenset[str]) -> Facts:
        state_dir = self._node.state_dir
        return Facts(
            state_dir=str(state_dir),
            maker=self._node.maker,
            tracked=tracked,
            nodes=frozenset(self._nodes()),
            alive=frozenset(peer.name for peer in peers.peers(state_dir) if peer.alive),
            given_up=self._policy.given_up,
        )

    def _is_due(self, result: SweepResult) -> bool:
        return self._first_seen.is_due(result.resource, self._now(), time.time())

    async def _remove(
        self, results: Sequence[SweepResult], is_due: Callable[[SweepResult], bool]
    ) -> None:
        """Removes container by container. After a failure the other containers follow."""
        groups: dict[tuple[str, str], list[SweepResult]] = {}
        for result in results:
            groups.setdefault(_group(result.resource), []).append(result)
        for group in groups.values():
            await asyncio.sleep(0)  # other work of the loop goes between the containers
            if any(result.outcome is Outcome.KEPT for result in group):
                continue
            if not all(is_due(result) for result in group):
                outcome, error = Outcome.WAITS, ""
            elif self._policy.dry_run:
                outcome, error = Outcome.FOUND, ""
            else:
                outcome, error = await self._attempt([result.resource for result in group])
            for result in group:
                result.outcome, result.error = outcome, error
                self._log_outcome(result)

    def _log_outcome(self, result: SweepResult) -> None:
        keys = {**_keys(result.resource), "reason": result.error or result.reason}
        match result.outcome:
            case Outcome.REMOVED:
                _log.info("orphan removed", extra=keys)
            case Outcome.FAILED:
                _log.warning("orphan not removed", extra=keys)
            case Outcome.WAITS:
                _log.debug("orphan waits for its grace time, or is needed again", extra=keys)
            case _:
                _log.debug("orphan kept by a dry run", extra=keys)

    async def _attempt(self, resources: Sequence[Resource]) -> tuple[Outcome, str]:
        try:
            removed = await self._remove_all(resources)
        except (DriverError, OSError) as error:
            return Outcome.FAILED, str(error)
        return (Outcome.REMOVED, "") if removed else (Outcome.WAITS, "")

    async def _remove_all(self, resources: Sequence[Resource]) -> bool:
        """Removes the objects of a group; False if the objects are needed again."""
        resource = resources[0]
        match resource.kind:
            case ResourceKind.EXEC:
                await self._remove_session(resource)
                return True
            case ResourceKind.LEASE if not resource.container:
                await self._node.containerd.leases.delete(resource.name, collect=True)
                return True
        if not await self._register.claim(resource.container):
            return False
        try:
            if resource.pid:
                await asyncio.to_thread(stray_workers.end, self._node, resource)
                return True
            if resource.kind is ResourceKind.MOUNTS:
                pins = pins_directory(self._node.state_dir, resource.container)
                await asyncio.to_thread(mount_sources.release, pins)
                return True
            return await self._remove_task(resources)
        finally:
            self._register.release(resource.container)

    async def _remove_task(self, resources: Sequence[Resource]) -> bool:
        container = resources[0].container
        present = await probe(self._node, await inventory.of_container(self._node, container))
        if set(present) != set(resources):
            return False  # another process works on the same objects
        snapshotters = {resource.snapshotter for resource in resources if resource.snapshotter}
        for snapshotter in snapshotters or {self._node.containerd.default_snapshotter}:
            await teardown.remove(
                self._node,
                container,
                link=None,
                reason="no task owns the container",
                snapshotter=snapshotter,
            )
        # Starts of releases before 1.4 had a lease.
        lease = identifiers.lease_id(resources[0].container)
        await self._node.containerd.leases.delete(lease)
        return True

    async def _remove_session(self, session: Resource) -> None:
        """Ends the command of an exec session without a caller, and removes the session."""
        containerd = self._node.containerd
        with contextlib.suppress(DriverError):  # the command may have ended, or never started
            await containerd.tasks.kill(
                session.container, signal.SIGKILL, everyone=False, exec_id=session.name
            )
        with contextlib.suppress(DriverError, TimeoutError):
            async with asyncio.timeout(_SESSION_S):
                await containerd.tasks.wait(session.container, session.name)
        await containerd.tasks.delete_exec(session.container, session.name)
        await asyncio.to_thread(tree_removal.remove, self._session_directory(session))

    def _session_directory(self, session: Resource) -> Path:
        return task_directory(self._node.state_dir, session.container) / session.name


def _group(resource: Resource) -> tuple[str, str]:
    """Returns a key that is equal for objects that are removed together."""
    alone = resource.kind in _ALONE or resource.pid or not resource.container
    return resource.container, resource.name if alone else ""


def _decided(resources: Iterable[Resource], facts: Facts) -> list[tuple[Resource, Decision]]:
    return [(resource, decide(resource, facts)) for resource in resources]


def _results(decisions: Sequence[tuple[Resource, Decision]]) -> list[SweepResult]:
    """Logs all decisions, and returns the objects without a live owner."""
    for resource, decision in decisions:
        _log_decision(resource, decision)
    live = {_group(each) for each, decision in decisions if decision.state is OwnerState.LIVE}
    return [
        SweepResult(
            resource=resource,
            reason=decision.reason,
            certain=decision.certain,
            outcome=Outcome.FOUND if decision.state is OwnerState.ORPHAN else Outcome.KEPT,
        )
        for resource, decision in decisions
        if _group(resource) not in live
    ]


def _log_decision(resource: Resource, decision: Decision) -> None:
    text = {
        OwnerState.LIVE: "object has a live owner",
        OwnerState.KEPT: "object has an unknown owner, kept",
        OwnerState.ORPHAN: "object is an orphan",
    }[decision.state]
    _log.debug(text, extra={**_keys(resource), "reason": decision.reason})


def _keys(resource: Resource) -> dict[str, object]:
    created = time.gmtime(resource.created_at_s)
    return {
        **keys_of_id(resource.task_id),
        "container_id": resource.container,
        "kind": str(resource.kind),
        "object": resource.name,
        "running": resource.running,
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", created),
    }


def _age_s(resource: Resource) -> float:
    return time.time() - resource.created_at_s
