"""The plugin's own sweeps: its name among its peers, and the reconciler of its configuration."""

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
from actors.orphans.reconciler import Reconciler, Register
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


class SupervisorRegister(Register):
    """The supervisor's map, asked by messages."""

    def __init__(self, supervisor: pykka.ActorRef[Any]) -> None:
        self._supervisor = supervisor

    async def tracked(self) -> frozenset[str]:
        """See `Register`."""
        reply: Reply[frozenset[str]] = Reply()
        self._tell(Track(reply=reply))
        return await reply.future

    async def claim(self, container: str) -> bool:
        """See `Register`."""
        reply: Reply[bool] = Reply()
        self._tell(Claim(container=container, reply=reply))
        try:
            return await reply.future
        except asyncio.CancelledError:
            # Granted to nobody, it would hold up starts for ever.
            self.release(container)
            raise

    def release(self, container: str) -> None:
        """See `Register`."""
        tell(self._supervisor, Unclaim(container=container))

    def _tell(self, message: Track | Claim) -> None:
        if not tell(self._supervisor, message):
            raise DriverError("the driver is shutting down", code=Code.UNAVAILABLE)


class Sweeping:
    """Belongs to the event loop. Its sweeps end with the process, or with `stop`."""

    def __init__(self, supervisor: pykka.ActorRef[Any]) -> None:
        self._register = SupervisorRegister(supervisor)
        self._presences: dict[Path, Presence] = {}
        self._nodes: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def announce(self, settings: DriverSettings, state_dir: Path) -> str:
        """This process's name in a state directory; empty where that takes no file."""
        if not settings.enabled:
            return ""
        if state_dir not in self._presences:
            try:
                self._presences[state_dir] = await asyncio.to_thread(_arrive, state_dir)
            except DriverError as error:
                _log.warning("orphans will not be looked for", extra={"why": str(error)})
                return ""
        await self._say(self._presences[state_dir])
        return self._presences[state_dir].name

    def begin(self, node: Node) -> None:
        """Sweeps by a configuration from now on, and by no earlier one."""
        self.stop()
        settings = node.settings
        if not node.maker or not settings.gc_dangling:
            return
        reconciler = Reconciler(
            node,
            self._register,
            nodes=lambda: self._nodes,
            grace_s=settings.gc_dangling_grace_s,
            dry_run=settings.gc_dangling_dry_run,
        )
        self._task = asyncio.create_task(reconciler.run(settings.gc_dangling_period_s))

    async def heard_from(self, task: TaskConfig) -> None:
        """An agent has given this plugin a task: what else is of this agent can be judged."""
        names = owners(task.node_id, task.alloc_dir)
        if self._nodes.issuperset(names) or task.node_id.startswith(RUN):
            return
        self._nodes.update(names)
        for own in self._presences.values():
            await self._say(own)

    async def _say(self, own: Presence) -> None:
        try:
            await asyncio.to_thread(own.say, nodes=sorted(self._nodes))
        except DriverError as error:
            _log.warning("the state directory takes nothing", extra={"why": str(error)})

    def stop(self) -> None:
        """No more sweeps."""
        if self._task is not None:
            self._task.cancel()
            self._task = None


def _arrive(state_dir: Path) -> Presence:
    """Takes a name, and forgets plugins that are dead."""
    for peer in peers.peers(state_dir):
        if not peer.alive and peer.name.startswith(PLUGIN):
            peers.forget(state_dir, peer.name)
    return Presence(state_dir, PLUGIN)


def release_mounts(node: Node) -> None:
    """Removes the mounts that dead plugins held for a start; nobody will go on with it. Blocks."""
    try:
        private_directory.check(str(node.state_dir))
    except DriverError as error:
        _log.warning("held mounts are not looked for", extra={"why": str(error)})
        return
    found = inventory.mounts(node)
    alive = {peer.name for peer in peers.peers(node.state_dir) if peer.alive}
    for thing in found:
        if thing.mark.maker not in alive:
            mount_sources.release(pins_directory(node.state_dir, thing.container))
