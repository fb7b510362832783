"""Restart of a dead plugin: recovers the tasks, and repeats the failed calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from plugin.host.agent.plugin_process import PluginProcess
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
        self._recovered: set[tuple[PluginProcess, str]] = set()

    async def start(self, attempt: Callable[[], Awaitable[Handle]]) -> Handle:
        """Returns the handle of a StartTask. Nomad also repeats a StartTask on the new plugin.

        Raises:
            DriverError: the error of the call, or the plugin has died five times.
        """
        process, handle = await self._repeated(lambda: None, attempt)
        self._recovered.add((process, handle.task_id))
        return handle

    async def call(
        self, handle: Callable[[], Handle | None], attempt: Callable[[], Awaitable[T]]
    ) -> T:
        """Returns the result of `attempt`; repeats the attempt after a death of the plugin.

        Args:
            handle: returns the task, which a new plugin recovers before the attempt; None if the
                task has not yet started.
            attempt: makes one call.

        Raises:
            DriverError: the error of the call, or the plugin has died five times.
        """
        _, result = await self._repeated(handle, attempt)
        return result

    async def _repeated(
        self, handle: Callable[[], Handle | None], attempt: Callable[[], Awaitable[T]]
    ) -> tuple[PluginProcess, T]:
        """Returns the process of the last attempt, and the attempt's result."""
        while True:
            process = await self._serving()
            try:
                await self._recover(handle())
                return process, await attempt()
            except DriverError as error:
                if not await self._session.died(error, process):
                    raise

    async def _serving(self) -> PluginProcess:
        """Returns the plugin's process; starts a process after a death."""
        async with self._lock:
            if not self._session.alive:
                self._deaths += 1
                if self._deaths > _MAX_DEATHS:
                    raise DriverError(
                        f"the plugin died {self._deaths} times",
                        resolution="see the log of the plugin: --verbose",
                        code=Code.INTERNAL,
                    )
                self._note("the plugin died and is started again; tasks go on")
                await self._session.launch()
            return self._session.process

    async def _recover(self, handle: Handle | None) -> None:
        """Recovers a task, once for each plugin process, also for several waiting calls."""
        if handle is None:
            return
        async with self._lock:
            key = (self._session.process, handle.task_id)
            if key in self._recovered:
                return
            try:
                await self._session.recover(handle)
            except DriverError:
                # The next call goes on without a recovery: a destroy removes the remains.
                self._recovered.add(key)
                raise
            self._recovered.add(key)
