"""The networks of a run's allocations, from before the first task until after the last."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

from plugin.host.network import namespaces
from plugin.host.network.cni import BridgeNetwork
from plugin.host.run import alloc_plan
from plugin.host.run.alloc_plan import Alloc
from proto.errors import Code, DriverError

T = TypeVar("T")


class AllocNetworks:
    """Makes a namespace for each allocation whose mode wants one, and attaches it.

    Args:
        bridge: the network of the mode "bridge".
        tell: is told what could not be undone.

    `clean` is whether nothing of it is left, after `tear_down`.
    """

    def __init__(self, bridge: BridgeNetwork, tell: Callable[[str], None]) -> None:
        self._bridge = bridge
        self._tell = tell
        self._made: list[Alloc] = []
        self._attached: list[Alloc] = []
        self.clean = True

    def check(self, allocs: Sequence[Alloc]) -> None:
        """Whether this machine has what the modes need.

        Raises:
            DriverError: code UNSUPPORTED, with what to install.
        """
        if any(alloc.mode == "bridge" for alloc in allocs):
            self._bridge.check()

    async def set_up(self, allocs: Sequence[Alloc], stop: Callable[[], bool]) -> list[Alloc]:
        """The allocations with their networks made; ends early where `stop` says so.

        Raises:
            DriverError: what could not be made; `tear_down` undoes the rest.
        """
        found: list[Alloc] = []
        isolated = [alloc for alloc in allocs if alloc.netns]
        if isolated:
            self._made = isolated
            names = [alloc.id for alloc in isolated]
            await asyncio.to_thread(_explained, lambda: namespaces.add(names))
        for alloc in allocs:
            if stop():
                break
            found.append(await self._attach(alloc) if alloc.mode == "bridge" else alloc)
        return found

    async def _attach(self, alloc: Alloc) -> Alloc:
        self._attached.append(alloc)
        end = await asyncio.to_thread(
            _explained, lambda: self._bridge.add(alloc.id, alloc.netns, alloc.ports)
        )
        return alloc_plan.attached(alloc, end)

    async def tear_down(self) -> None:
        """Undoes what was made, also in part; what fails is told, and the rest goes on."""
        while self._attached:
            alloc = self._attached.pop()
            await self._undo(alloc.label, functools.partial(self._detach, alloc))
        made, self._made = self._made, []
        if made:
            names = [alloc.id for alloc in made]
            await self._undo("network", functools.partial(namespaces.remove, names))

    def _detach(self, alloc: Alloc) -> None:
        for error in self._bridge.delete(alloc.id, alloc.netns, alloc.ports):
            self._complain(alloc.label, error)

    async def _undo(self, label: str, work: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(_explained, work)
        except DriverError as error:
            self._complain(label, error)

    def _complain(self, label: str, error: DriverError) -> None:
        self.clean = False
        self._tell(f"{label}: its network is not wholly removed: {error}")


def _explained(work: Callable[[], T]) -> T:
    """Returns what `work` gives; a system call that fails becomes a failure in words."""
    try:
        return work()
    except OSError as error:
        raise DriverError(
            f"the network's files: {error.filename or ''}: {error.strerror}", code=Code.DENIED
        ) from error
