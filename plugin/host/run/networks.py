"""Networks of a run's allocations, from before the first task until after the last."""

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
    """Creates and attaches the namespaces of allocations, as their modes demand.

    Args:
        bridge: the network of mode "bridge".
        complain: shows a failure of `tear_down`.

    Attributes:
        clean: False if `tear_down` left an object.
    """

    def __init__(self, bridge: BridgeNetwork, complain: Callable[[str], None]) -> None:
        self._bridge = bridge
        self._complain = complain
        self._isolated: list[Alloc] = []
        self._attached: list[Alloc] = []
        self.clean = True

    def check(self, allocs: Sequence[Alloc]) -> None:
        """Checks this machine for the programs of the modes.

        Raises:
            DriverError: code UNSUPPORTED, a program is missing; with its package.
        """
        if any(alloc.mode == "bridge" for alloc in allocs):
            self._bridge.check()

    async def set_up(self, allocs: Sequence[Alloc], stop: Callable[[], bool]) -> list[Alloc]:
        """Creates the networks and returns the connected allocations.

        Args:
            allocs: the allocations of the run.
            stop: returns True if the run was stopped; the method then ends early.

        Raises:
            DriverError: a network cannot be created; `tear_down` removes the other networks.
        """
        connected: list[Alloc] = []
        self._isolated = [alloc for alloc in allocs if alloc.netns]
        if self._isolated:
            names = [alloc.id for alloc in self._isolated]
            await asyncio.to_thread(_explained, lambda: namespaces.add(names))
        for alloc in allocs:
            if stop():
                break
            connected.append(await self._attach(alloc) if alloc.mode == "bridge" else alloc)
        return connected

    async def _attach(self, alloc: Alloc) -> Alloc:
        self._attached.append(alloc)
        attached = await asyncio.to_thread(
            _explained, lambda: self._bridge.add(alloc.id, alloc.netns, alloc.ports)
        )
        return alloc_plan.attached(alloc, attached)

    async def tear_down(self) -> None:
        """Removes all created networks; a failure is shown and stops nothing."""
        while self._attached:
            alloc = self._attached.pop()
            await self._undo(alloc.label, functools.partial(self._detach, alloc))
        isolated, self._isolated = self._isolated, []
        if isolated:
            names = [alloc.id for alloc in isolated]
            await self._undo("network", functools.partial(namespaces.remove, names))

    def _detach(self, alloc: Alloc) -> None:
        for error in self._bridge.delete(alloc.id, alloc.netns, alloc.ports):
            self._fail(alloc.label, error)

    async def _undo(self, label: str, work: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(_explained, work)
        except DriverError as error:
            self._fail(label, error)

    def _fail(self, label: str, error: DriverError) -> None:
        self.clean = False
        self._complain(f"{label}: the network is not wholly removed: {error}")


def _explained(work: Callable[[], T]) -> T:
    """Returns the result of `work`; converts an OSError into a DriverError."""
    try:
        return work()
    except OSError as error:
        raise DriverError(
            "cannot change the files of a network",
            details=f"{error.filename or ''}: {error.strerror}",
            code=Code.DENIED,
        ) from error
