"""Kills processes around a task, and starts processes that do not return by themselves."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from pathlib import Path

from plugin.host.agent.session import Handle
from tests.support.plugin.driver import Driver, Job
from tests.support.workers.launcher import launcher_pid, worker_pid

PLUGIN, WORKER, LAUNCHER, CONTAINERD = "plugin", "worker", "launcher", "containerd"
ALL = (PLUGIN, WORKER, LAUNCHER, CONTAINERD)
SINGLES = [(one,) for one in ALL]
PAIRS = list(itertools.combinations(ALL, 2))
SINGLES_AND_PAIRS = [*SINGLES, *PAIRS]


class Victims:
    """The processes around one task.

    The constructor stores the worker's pid: a worker that hangs cannot be asked. The launcher may
    be gone already: the plugin starts a launcher before the next fork.
    """

    def __init__(self, driver: Driver, job: Job) -> None:
        self._driver = driver
        self._launcher = launcher_pid(driver.state_dir)
        self.worker = worker_pid(driver.state_dir / "tasks" / job.container)

    def kill(self, *victims: str) -> None:
        """Kills the victims in this order."""
        for victim in victims:
            match victim:
                case "plugin":
                    self._driver.session.kill_plugin()
                case "worker":
                    _kill(self.worker)
                case "launcher":
                    _kill(self._launcher)
                case "containerd":
                    self._driver.containerd.down()
                case other:
                    raise AssertionError(f"{other!r} cannot be killed")

    def hold_worker(self, *, held: bool) -> None:
        """Stops the worker's process, or continues a stopped worker."""
        assert self.worker is not None
        os.kill(self.worker, signal.SIGSTOP if held else signal.SIGCONT)

    async def bring_back(self, *victims: str, handle: Handle | None) -> None:
        """Acts as operator, systemd and Nomad do; the new plugin recovers the handle."""
        if CONTAINERD in victims:
            await asyncio.to_thread(self._driver.containerd.start)
        if PLUGIN in victims:
            await self._driver.session.launch()
            if handle is not None:
                await self._driver.session.recover(handle)


def _kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def runs(pid: int | None) -> bool:
    """Returns whether a process exists and is no zombie, which only the new parent can reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
