"""Finds what no live task owns, and removes it when its time has come.

    look (inventory) → judge (orphans) → wait for the time of grace → claim → look again → remove

What belongs to one container goes together: while one of its parts is needed, or too young, all
stay. A claim keeps a start of the same task waiting until the removal is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from actors.files import tree_removal
from actors.files.state_dir import pins_directory, task_directory
from actors.lifecycle import teardown
from actors.orphans import inventory, peers, stray_workers
from actors.orphans.judgement import Kind, Known, Sightings, Thing, Verdict, judge
from actors.provision import mount_sources
from proto.errors import DriverError

if TYPE_CHECKING:
    from pathlib import Path

    from actors.model.node import Node

_log = logging.getLogger(__name__)
_SESSION_S = 5.0
# These go by themselves, whatever becomes of the task.
_ALONE = frozenset({Kind.MOUNTS, Kind.EXEC})


class Register(Protocol):
    """Who knows the tasks of this process."""

    async def tracked(self) -> frozenset[str]:
        """Ids of the containers of all tasks that are looked after."""
        ...

    async def claim(self, container: str) -> bool:
        """Keeps starts of a container waiting; False, and nothing kept, where it is tracked."""
        ...

    def release(self, container: str) -> None:
        """Ends a claim."""
        ...


class NobodysTasks(Register):
    """Of a process that has none: a command's."""

    async def tracked(self) -> frozenset[str]:
        """None."""
        return frozenset()

    async def claim(self, container: str) -> bool:  # noqa: ARG002 - see Register
        """Always granted."""
        return True

    def release(self, container: str) -> None:
        """Nothing to do."""


class Outcome(StrEnum):
    """What became of a finding; the values are words for people."""

    KEPT = "kept"
    WAITS = "waits"
    FOUND = "orphan"
    REMOVED = "removed"
    FAILED = "not removed"


@dataclass(slots=True, kw_only=True)
class Finding:
    """One thing that is no live task's, why, and what became of it."""

    thing: Thing
    why: str
    certain: bool = False
    outcome: Outcome = Outcome.KEPT
    error: str = ""


class Reconciler:
    """Belongs to the event loop; one per configuration of the driver, or of a command.

    Args:
        node: which containerd and which state directory.
        register: the tasks of this process.
        nodes: gives the nodes of Nomad that this process is of.
        given_up: nodes that will not come back, as the operator says.
        grace_s: how long something has to be an orphan.
        dry_run: True removes nothing.
        now: the clock that nobody sets, see `orphans.Sightings`.
    """

    def __init__(
        self,
        node: Node,
        register: Register,
        *,
        nodes: Callable[[], Iterable[str]] = tuple,
        given_up: Iterable[str] = (),
        grace_s: float,
        dry_run: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._register = register
        self._nodes = nodes
        self._given_up = frozenset(given_up)
        self._grace_s = grace_s
        self._dry_run = dry_run
        self._now = now
        self._sightings = Sightings(grace_s)

    async def run(self, period_s: float) -> None:
        """Sweeps for ever. Not at once: an agent needs its time to recover its tasks."""
        await asyncio.sleep(max(period_s, self._grace_s))
        while True:
            try:
                await self.sweep()
            except DriverError as error:
                _log.info("no look for orphans", extra={"why": str(error)})
            except Exception:  # noqa: BLE001 - the next sweep may do better
                _log.exception("the look for orphans failed")
            await asyncio.sleep(period_s)

    async def sweep(self) -> list[Finding]:
        """Looks, and removes what has been an orphan for its time of grace.

        Raises:
            DriverError: containerd cannot be asked; nothing was removed.
        """
        findings = await self.look()
        orphans = [finding for finding in findings if finding.outcome is not Outcome.KEPT]
        new = self._sightings.see((finding.thing for finding in orphans), self._now())
        for finding in orphans:
            if finding.thing in new:
                _log.warning("orphan found", extra={**_told(finding), "dry_run": self._dry_run})
        due = {finding.thing.key for finding in orphans if self._is_due(finding)}
        await self._remove(findings, lambda finding: finding.thing.key in due)
        return findings

    async def sweep_once(self) -> list[Finding]:
        """As `sweep`, for a process that does not stay: only things that are old enough go.

        Raises:
            DriverError: containerd cannot be asked; nothing was removed.
        """
        findings = await self.look()
        await self._remove(
            findings, lambda finding: finding.certain or _age_s(finding.thing) >= self._grace_s
        )
        return findings

    async def look(self) -> list[Finding]:
        """Returns what no live task owns, and what nobody can tell of.

        Raises:
            DriverError: containerd cannot be asked.
        """
        before = await self._register.tracked()
        things = await inventory.take(self._node, before)
        # Asked again: what came while we looked is no orphan, and what went is on its way out.
        tracked = before | await self._register.tracked()
        known = await asyncio.to_thread(self._known, tracked)
        judged = [(thing, judge(thing, known)) for thing in things]
        live = {_group(thing) for thing, said in judged if said.verdict is Verdict.LIVE}
        found: list[Finding] = []
        for thing, judgement in judged:
            if _group(thing) in live:
                continue
            orphan = judgement.verdict is Verdict.ORPHAN
            found.append(
                Finding(
                    thing=thing,
                    why=judgement.why,
                    certain=judgement.certain,
                    outcome=Outcome.FOUND if orphan else Outcome.KEPT,
                )
            )
        return found

    def _known(self, tracked: frozenset[str]) -> Known:
        state_dir = self._node.state_dir
        return Known(
            state_dir=str(state_dir),
            maker=self._node.maker,
            tracked=tracked,
            nodes=frozenset(self._nodes()),
            alive=frozenset(peer.name for peer in peers.peers(state_dir) if peer.alive),
            given_up=self._given_up,
        )

    def _is_due(self, finding: Finding) -> bool:
        return self._sightings.is_due(finding.thing, self._now(), time.time())

    async def _remove(self, findings: Sequence[Finding], is_due: Callable[[Finding], bool]) -> None:
        """Removes container by container; one that fails does not stop the others."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for finding in findings:
            groups.setdefault(_group(finding.thing), []).append(finding)
        for group in groups.values():
            if any(finding.outcome is Outcome.KEPT for finding in group):
                continue
            if not all(is_due(finding) for finding in group):
                outcome, error = Outcome.WAITS, ""
            elif self._dry_run:
                outcome, error = Outcome.FOUND, ""
            else:
                outcome, error = await self._tried([finding.thing for finding in group])
            for finding in group:
                finding.outcome, finding.error = outcome, error
                if outcome in {Outcome.REMOVED, Outcome.FAILED}:
                    level = logging.WARNING if error else logging.INFO
                    _log.log(level, "orphan %s", outcome, extra={**_told(finding), "error": error})

    async def _tried(self, things: Sequence[Thing]) -> tuple[Outcome, str]:
        try:
            removed = await self._remove_all(things)
        except (DriverError, OSError) as error:
            return Outcome.FAILED, str(error)
        return (Outcome.REMOVED, "") if removed else (Outcome.WAITS, "")

    async def _remove_all(self, things: Sequence[Thing]) -> bool:
        """Removes what belongs together; False where it is needed after all."""
        thing = things[0]
        match thing.kind:
            case Kind.EXEC:
                await self._remove_session(thing)
                return True
            case Kind.LEASE if not thing.container:
                await self._node.containerd.leases.delete(thing.name, collect=True)
                return True
        if not await self._register.claim(thing.container):
            return False
        try:
            if thing.pid:
                await asyncio.to_thread(stray_workers.end, self._node, thing)
                return True
            if thing.kind is Kind.MOUNTS:
                pins = pins_directory(self._node.state_dir, thing.container)
                await asyncio.to_thread(mount_sources.release, pins)
                return True
            return await self._remove_task(things)
        finally:
            self._register.release(thing.container)

    async def _remove_task(self, things: Sequence[Thing]) -> bool:
        group = _group(things[0])
        now = await inventory.take(self._node, await self._register.tracked())
        if {thing for thing in now if _group(thing) == group} != set(things):
            return False  # somebody else is at it
        snapshotters = {thing.snapshotter for thing in things if thing.snapshotter}
        for snapshotter in snapshotters or {self._node.containerd.default_snapshotter}:
            await teardown.remove(
                self._node,
                things[0].container,
                link=None,
                reason="no task owns the container",
                snapshotter=snapshotter,
            )
        return True

    async def _remove_session(self, thing: Thing) -> None:
        """Ends the command of an exec session that nobody reads any more."""
        containerd = self._node.containerd
        with contextlib.suppress(DriverError):  # it may have ended, or never have begun
            await containerd.tasks.kill(
                thing.container, signal.SIGKILL, everyone=False, exec_id=thing.name
            )
        with contextlib.suppress(DriverError, TimeoutError):
            async with asyncio.timeout(_SESSION_S):
                await containerd.tasks.wait(thing.container, thing.name)
        await containerd.tasks.delete_exec(thing.container, thing.name)
        directory = self._session(thing)
        await asyncio.to_thread(tree_removal.remove, directory)

    def _session(self, thing: Thing) -> Path:
        return task_directory(self._node.state_dir, thing.container) / thing.name


def _group(thing: Thing) -> tuple[str, str]:
    """The same for all that goes together."""
    alone = thing.kind in _ALONE or thing.pid or not thing.container
    return thing.container, thing.name if alone else ""


def _told(finding: Finding) -> dict[str, object]:
    thing = finding.thing
    return {
        "kind": str(thing.kind),
        "id": thing.name,
        "task_id": thing.task_id,
        "why": finding.why,
        "running": thing.running,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(thing.since)),
    }


def _age_s(thing: Thing) -> float:
    return time.time() - thing.since
