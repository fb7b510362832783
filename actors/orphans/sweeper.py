"""Sweeps of a plugin: the plugin's file among the peers, and a reconciler for the configuration."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from actors.asyncio_bridge import Reply, tell
from actors.files.state_dir import pins_directory
from actors.messages import Claim, Track, Unclaim
from actors.model.ownership import PLUGIN, RUN, owners
from actors.orphans import inventory, peers
from actors.orphans.peers import Presence
from actors.orphans.reconciler import Reconciler, SweepPolicy, TaskRegister
from actors.provision import mount_sources
from proto.errors import Code, DriverError
from workers import private_directory

if TYPE_CHECKING:
    from pathlib import Path

    import pykka

    from actors.model.node import Node
    from actors.model.nomad import TaskConfig
    from actors.model.settings import DriverSettings

_log = logging.getLogger(__name__)


class SupervisorRegister(TaskRegister):
    """The Supervisor's map of tasks, through messages."""

    def __init__(self, supervisor: pykka.ActorRef[Any]) -> None:
        self._supervisor = supervisor

    async def tracked(self) -> frozenset[str]:
        """See `TaskRegister`."""
        reply: Reply[frozenset[str]] = Reply()
        self._send(Track(reply=reply))
        return await reply.future

    async def claim(self, container: str) -> bool:
        """See `TaskRegister`."""
        reply: Reply[bool] = Reply()
        self._send(Claim(container=container, reply=reply))
        try:
            return await reply.future
        except asyncio.CancelledError:
            # Without a release the claim would delay starts for ever.
            self.release(container)
            raise

    def release(self, container: str) -> None:
        """See `TaskRegister`."""
        tell(self._supervisor, Unclaim(container=container))

    def _send(self, message: Track | Claim) -> None:
        if not tell(self._supervisor, message):
            raise DriverError("the driver is shutting down", code=Code.UNAVAILABLE)


class Sweeper:
    """Sweeps of a plugin. Belongs to the event loop. The sweeps end with the process."""

    def __init__(self, supervisor: pykka.ActorRef[Any]) -> None:
        self._register = SupervisorRegister(supervisor)
        self._presences: dict[Path, Presence] = {}
        self._nodes: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def announce(self, settings: DriverSettings, state_dir: Path) -> str:
        """Creates this process's file in a state directory.

        Returns:
            The name of the file; empty if the driver is disabled or the file cannot be created.
        """
        if not settings.enabled:
            return ""
        if state_dir not in self._presences:
            try:
                self._presences[state_dir] = await asyncio.to_thread(_arrive, state_dir)
            except DriverError as error:
                _log.warning("orphan sweeps disabled", extra={"reason": str(error)})
                return ""
        await self._publish(self._presences[state_dir])
        return self._presences[state_dir].name

    def begin(self, node: Node) -> None:
        """Starts sweeps for a configuration, and ends the sweeps of an earlier configuration."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        settings = node.settings
        if not node.maker or not settings.gc_dangling:
            return
        reconciler = Reconciler(
            node,
            self._register,
            SweepPolicy(grace_s=settings.gc_dangling_grace_s, dry_run=settings.gc_dangling_dry_run),
            nodes=lambda: self._nodes,
        )
        self._task = asyncio.create_task(reconciler.run(settings.gc_dangling_period_s))

    async def add_agent(self, task: TaskConfig) -> None:
        """Adds the agent of a task: a sweep may now decide about all objects of the agent."""
        names = owners(task.node_id, task.alloc_dir)
        if self._nodes.issuperset(names) or task.node_id.startswith(RUN):
            return
        self._nodes.update(names)
        for presence in self._presences.values():
            await self._publish(presence)

    async def _publish(self, presence: Presence) -> None:
        try:
            await asyncio.to_thread(presence.publish, nodes=sorted(self._nodes))
        except DriverError as error:
            _log.warning("cannot write to the state directory", extra={"reason": str(error)})


def _arrive(state_dir: Path) -> Presence:
    """Creates this plugin's file, and removes the files of dead plugins."""
    for peer in peers.peers(state_dir):
        if not peer.alive and peer.name.startswith(PLUGIN):
            peers.remove(state_dir, peer.name)
    return Presence(state_dir, PLUGIN)


def release_mounts(node: Node) -> None:
    """Releases the pins of dead plugins: no process continues an interrupted start. Blocks."""
    try:
        private_directory.check(str(node.state_dir))
    except DriverError as error:
        _log.warning("search for pinned mounts skipped", extra={"reason": str(error)})
        return
    resources = inventory.mounts(node)
    alive = {peer.name for peer in peers.peers(node.state_dir) if peer.alive}
    for resource in resources:
        if resource.owner.maker not in alive:
            keys = {"container_id": resource.container, "reason": "the creating plugin has ended"}
            _log.debug("pinned mounts of an interrupted start released", extra=keys)
            mount_sources.release(pins_directory(node.state_dir, resource.container))
