"""Going on after the plugin's death: started again, tasks taken back, the call made once more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from plugin.host.agent.session import Handle, HostSession
from proto.errors import Code, DriverError

T = TypeVar("T")
_MAX_DEATHS = 5


class PluginCare:
    """Shared by all tasks of a run.

    Args:
        session: the plugin, which dies and is launched again.
        tell: is told when that happens.
    """

    def __init__(self, session: HostSession, tell: Callable[[str], None]) -> None:
        self._session = session
        self._tell = tell
        self._lock = asyncio.Lock()
        self._deaths = 0
        self._taken_back: set[tuple[int, str]] = set()

    async def insist(self, handle: Handle | None, call: Callable[[], Awaitable[T]]) -> T:
        """What `call` gives, over the deaths of the plugin; the task is recovered before each.

        Without a handle the call is a StartTask, which Nomad repeats on the new instance too.

        Raises:
            DriverError: what the call itself met, or the plugin does not stay alive.
        """
        while True:
            try:
                return await call()
            except DriverError as error:
                if not await self._session.died(error):
                    raise
            await self._revive()
            if handle is not None:
                await self._take_back(handle)

    async def _revive(self) -> None:
        async with self._lock:
            if self._session.alive:
                return
            self._deaths += 1
            if self._deaths > _MAX_DEATHS:
                raise DriverError(
                    f"the plugin died {self._deaths} times",
                    resolution="its log tells why: --verbose",
                    code=Code.INTERNAL,
                )
            self._tell("the plugin died; it is started again, tasks go on")
            await self._session.launch()

    async def _take_back(self, handle: Handle) -> None:
        """RecoverTask, once for each life of the plugin, however many calls wait."""
        async with self._lock:
            key = (self._session.pid, handle.task_id)
            if key in self._taken_back:
                return
            try:
                await self._session.recover(handle)
            except DriverError as error:
                if await self._session.died(error):
                    return  # the next call fails too and comes back here
                raise
            self._taken_back.add(key)
