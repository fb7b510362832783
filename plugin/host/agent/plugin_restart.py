"""Restart of a dead plugin: recovers the tasks, and repeats the failed calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from plugin.host.agent.session import Handle, PluginSession
from proto.errors import Code, DriverError

T = TypeVar("T")
_MAX_DEATHS = 5


class PluginRestarter:
    """Restarts the plugin of a run; all tasks of the run share an instance.

    Args:
        session: the plugin, which is launched again after a death.
        note: shows a line about a death.
    """

    def __init__(self, session: PluginSession, note: Callable[[str], None]) -> None:
        self._session = session
        self._note = note
        self._lock = asyncio.Lock()
        self._deaths = 0
        self._recovered: set[tuple[int, str]] = set()

    async def call(self, handle: Handle | None, attempt: Callable[[], Awaitable[T]]) -> T:
        """Returns the result of `attempt`; repeats the attempt after a death of the plugin.

        Args:
            handle: the task, which is recovered before a repetition; None for a StartTask, which
                Nomad also repeats on the new plugin.
            attempt: makes one call.

        Raises:
            DriverError: the error of the call, or the plugin has died five times.
        """
        while True:
            try:
                return await attempt()
            except DriverError as error:
                if not await self._session.died(error):
                    raise
            await self._restart()
            if handle is not None:
                await self._recover(handle)

    async def _restart(self) -> None:
        async with self._lock:
            if self._session.alive:
                return
            self._deaths += 1
            if self._deaths > _MAX_DEATHS:
                raise DriverError(
                    f"the plugin died {self._deaths} times",
                    resolution="see the log of the plugin: --verbose",
                    code=Code.INTERNAL,
                )
            self._note("the plugin died and is started again; tasks go on")
            await self._session.launch()

    async def _recover(self, handle: Handle) -> None:
        """Recovers a task, once for each plugin process, also for several waiting calls."""
        async with self._lock:
            key = (self._session.pid, handle.task_id)
            if key in self._recovered:
                return
            try:
                await self._session.recover(handle)
            except DriverError as error:
                if await self._session.died(error):
                    return  # the next call fails too, and restarts the plugin
                raise
            self._recovered.add(key)
