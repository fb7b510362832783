"""One task of the soak, from start to removal, over deaths of its plugin."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plugin.host.agent.log_reader import LogReader
from plugin.host.agent.session import Handle
from proto.errors import DriverError
from tests.soak.agent import Agent
from tests.soak.log_check import LogCheck, script
from tests.support.plugin.driver import Driver, Job
from tests.support.waiting import until

_STATS_S = 1.0
_LATE_S = 60.0
_CODES = 120
"""A code above 128 stands for a signal."""


@dataclass(slots=True)
class Counts:
    """Sums over all tasks of a soak."""

    tasks: int = 0
    starts: int = 0
    lines: int = 0
    signals: int = 0
    execs: int = 0
    samples: int = 0
    exits: int = 0
    stopped: int = 0


class TaskLife:
    """One task. After `end`, `faults` has all errors of the task.

    Args:
        agent: the agent that makes the calls.
        driver: creates the allocation.
        image: an image with busybox.
        number: the number of the task, from which the exit code follows.
        counts: the sums to add to.
    """

    def __init__(
        self, agent: Agent, driver: Driver, image: str, number: int, counts: Counts
    ) -> None:
        self._agent = agent
        self._image = image
        self._code = 1 + number % _CODES
        self._counts = counts
        self._job = driver.task(f"s{number}")
        self._log = LogCheck()
        self._errors = bytearray()
        self._readers: list[LogReader] = []
        self._pumps: list[asyncio.Task[None]] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._starts = 0
        self._samples = 0
        self._exec = 0
        self._ending = False
        self._one_thing = asyncio.Lock()
        self.faults: list[str] = []

    @property
    def job(self) -> Job:
        """The task in the form of the driver's tests."""
        return self._job

    async def begin(self) -> None:
        """Starts the task and returns at the first log line.

        Raises:
            DriverError: the task does not start.
        """
        config = self._job.config
        for stream in ("stdout", "stderr"):
            reader = LogReader(self._job.alloc.fifo(config.name, stream))
            self._readers.append(reader)
            self._pumps.append(asyncio.create_task(self._pump(reader, stream)))
        options: dict[str, object] = {
            "image": self._image,
            "command": "/bin/sh",
            "args": ["-c", script(self._code)],
        }
        handle = await self._agent.insist(lambda: self._start(options))
        self._agent.handles[self._job.id] = handle
        self._counts.tasks += 1
        self._watchers.append(asyncio.create_task(self._watch_stats()))
        await until(lambda: self._log.lines, _LATE_S, f"{self._job.id} logs nothing")

    def _start(self, options: dict[str, object]) -> Coroutine[Any, Any, Handle]:
        self._starts += 1
        self._counts.starts += 1
        return self._agent.session.start(self._job.config, options)

    async def _pump(self, reader: LogReader, stream: str) -> None:
        async for data in reader.chunks():
            if stream == "stdout":
                before = self._log.lines
                self._log.feed(data)
                self._counts.lines += self._log.lines - before
            else:
                self._errors += data

    async def _watch_stats(self) -> None:
        """Reads stats for the task's life, and opens a new stream after an end, as Nomad does."""
        while True:
            with contextlib.suppress(DriverError):
                async for usage in self._agent.session.stats(self._job.id, _STATS_S):
                    self._samples += bool(usage.memory.usage)
                    self._counts.samples += 1
            await asyncio.sleep(_STATS_S)

    async def touch(self, chance: random.Random) -> None:
        """Makes one call of a user or of Nomad on a running task and checks the call's effect."""
        async with self._one_thing:
            if self._ending:
                return
            try:
                await chance.choice((self._signal, self._execute, self._sampled))()
            except (AssertionError, DriverError) as error:
                self.faults.append(f"{self._job.id}: {error}")

    async def _signal(self) -> None:
        wanted = self._log.signals + 1
        await self._agent.insist(lambda: self._agent.session.signal(self._job.id, "SIGUSR1"))
        await until(lambda: self._log.signals >= wanted, _LATE_S, "a signal has not arrived")
        self._counts.signals += 1

    async def _execute(self) -> None:
        self._exec += 1
        word, code = f"exec-{self._exec}", self._exec % _CODES
        command = ["/bin/sh", "-c", f"echo {word}; exit {code}"]
        done = await self._agent.insist(lambda: self._agent.session.exec(self._job.id, command, 60))
        if (done.stdout, done.exit.exit_code) != (f"{word}\n".encode(), code):
            raise AssertionError(f"exec {word} gave {done}, not {code}")
        self._counts.execs += 1

    async def _sampled(self) -> None:
        wanted = self._samples + 1
        await until(lambda: self._samples >= wanted, _LATE_S, "no sample comes")

    async def end(self, *, stop: bool) -> None:
        """Ends the task, by StopTask or by itself, and checks exit and log."""
        self._ending = True
        async with self._one_thing:
            await self._end(stop=stop)
            await self._remove()

    async def _end(self, *, stop: bool) -> None:
        ended = asyncio.create_task(
            self._agent.insist(lambda: self._agent.session.wait(self._job.id))
        )
        try:
            if stop:
                self._counts.stopped += 1
                await self._agent.insist(lambda: self._agent.session.stop(self._job.id, 30))
            else:
                Path(self._job.alloc.path, self._job.config.name, "local", "stop").touch()
            result = await asyncio.wait_for(ended, _LATE_S)
            if (result.exit_code, result.signal, result.error) == (self._code, 0, ""):
                self._counts.exits += 1
            else:
                self.faults.append(f"{self._job.id} ended with {result}, not {self._code}")
        except (DriverError, TimeoutError) as error:
            self.faults.append(f"{self._job.id} has no end: {error!r}")

    async def _remove(self) -> None:
        # Nomad recovers no task whose end Nomad has seen.
        self._agent.handles.pop(self._job.id, None)
        try:
            await self._agent.insist(lambda: self._agent.session.destroy(self._job.id))
        except DriverError as error:
            self.faults.append(f"{self._job.id} is not removed: {error}")
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for reader in self._readers:
            reader.finish()
        _, late = await asyncio.wait(self._pumps, timeout=_LATE_S)
        if late:
            self.faults.append(f"{self._job.id}: its log has no end")
        for pump in late:
            pump.cancel()
        for reader in self._readers:
            reader.close()
        self._log.finish(starts=self._starts)
        self.faults += [f"{self._job.id}: {fault}" for fault in self._log.faults[:3]]
        if self._errors:
            self.faults.append(f"{self._job.id}: stderr {bytes(self._errors[:200])!r}")
