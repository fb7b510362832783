"""The agent's part over deaths of its plugin: restart, recovery of tasks, repeated calls."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from plugin.host.agent.session import Handle
from proto.errors import DriverError
from tests.support.plugin.agent_session import AgentSession

T = TypeVar("T")
_LOOK_S = 0.02


class Agent:
    """Keeps one plugin running, and kills the plugin at random.

    Args:
        session: the plugin.
        chance: draws the moments of the kills.
        kill_every_s: the mean time between two kills.
    """

    def __init__(self, session: AgentSession, chance: random.Random, kill_every_s: float) -> None:
        self.session = session
        self.handles: dict[str, Handle] = {}
        self.kills = 0
        self.recovered = 0
        self.slowest_recovery_s = 0.0
        self.faults: list[str] = []
        self._chance = chance
        self._kill_every_s = kill_every_s
        self._up = asyncio.Event()
        self._killed = False
        self._kills_now = asyncio.Event()

    @property
    def up(self) -> bool:
        """True while the plugin runs and has recovered all its tasks."""
        return self._up.is_set()

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Awaits `call`, again on the next plugin if the plugin dies meanwhile.

        Raises:
            DriverError: the call failed on a living plugin.
        """
        while True:
            await self._up.wait()
            pid = self.session.pid
            try:
                return await call()
            except DriverError as error:
                if pid == self.session.pid and not await self.session.died(error):
                    raise
                await self._next_after(pid)

    async def _next_after(self, pid: int) -> None:
        while self.session.pid == pid or not self._up.is_set():
            await asyncio.sleep(_LOOK_S)

    def storm(self, *, on: bool) -> None:
        """Starts or stops the kills."""
        if on:
            self._kills_now.set()
        else:
            self._kills_now.clear()

    async def kill_at_random(self) -> None:
        """Kills the plugin, also during its start or recovery; runs until cancelled."""
        while True:
            await self._kills_now.wait()
            await asyncio.sleep(self._kill_every_s * self._chance.uniform(0.1, 1.9))
            if self._kills_now.is_set() and self.session.alive:
                self._killed = True
                self._up.clear()
                self.kills += 1
                self.session.kill_plugin()

    async def keep(self) -> None:
        """Starts the plugin whenever no plugin runs; runs until cancelled."""
        while True:
            if not self.session.alive:
                self._up.clear()
                if self.session.pid and not self._killed:
                    self.faults.append("the plugin died by itself")
                self._killed = False
                await self._revive()
            await asyncio.sleep(_LOOK_S)

    async def _revive(self) -> None:
        """Starts a new process and sends RecoverTask for all tasks at once, as Nomad does."""
        try:
            await self.session.launch()
            begun = time.monotonic()
            await asyncio.gather(*(self._recover(handle) for handle in [*self.handles.values()]))
        except DriverError as error:
            if not await self.session.died(error) and self.session.alive:
                self.faults.append(f"the plugin does not start: {error}")
            return
        self.slowest_recovery_s = max(self.slowest_recovery_s, time.monotonic() - begun)
        self._up.set()

    async def _recover(self, handle: Handle) -> None:
        try:
            await self.session.recover(handle)
        except DriverError as error:
            if await self.session.died(error):
                raise
            self.faults.append(f"{handle.task_id} is not recovered: {error}")
        else:
            self.recovered += 1
