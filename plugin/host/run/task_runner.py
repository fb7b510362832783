"""Runner of one task of the dev host: start, logs, end, and always the removal."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

from actors.model.nomad import ExitResult
from plugin.host.agent.log_reader import LogFollower, LogReader
from plugin.host.agent.plugin_restart import PluginRestarter
from plugin.host.agent.session import Handle, PluginSession
from plugin.host.run.alloc_plan import PlannedTask
from plugin.host.run.interrupts import Interrupts, StopLevel
from plugin.host.run.screen import Screen
from plugin.host.run.systemd import ServiceManager
from proto.errors import DriverError

DRIVER_FAILED = 125
INTERRUPTED = 130
"""A shell's exit status for Ctrl-C: the task never ran, or the run did not wait for its end."""
_STREAMS = ("stdout", "stderr")
_LOG_END_S = 5.0
_FULL_S = 0.5
_DESTROY_S = 2.0


class TaskRunner:
    """Runs one task. Failures are shown and become an exit status, never an exception.

    Args:
        planned: the task.
        session: the plugin.
        restarter: repeats calls after a death of the plugin.
        screen: shows logs and events.
        interrupts: the stop level of the run.
        service: reports start and end to systemd.

    Attributes:
        removed: True after the removal of the task.
    """

    def __init__(
        self,
        planned: PlannedTask,
        session: PluginSession,
        restarter: PluginRestarter,
        screen: Screen,
        interrupts: Interrupts,
        service: ServiceManager,
    ) -> None:
        self._planned = planned
        self._id = planned.config.id
        self._label = planned.label
        self._session = session
        self._restarter = restarter
        self._screen = screen
        self._interrupts = interrupts
        self._service = service
        self._handle: Handle | None = None
        self._may_read = asyncio.Event()
        self._readers: list[LogReader | LogFollower] = []
        self._logs: list[asyncio.Task[None]] = []
        self.removed = False

    async def run(self, *, stats: bool) -> int:
        """Starts the task, waits for its end, removes the task; returns the exit status.

        Args:
            stats: True shows a sample of the usage each second.
        """
        self._open_logs()
        life = asyncio.create_task(self._life(stats=stats))
        leaving = asyncio.create_task(self._interrupts.reached(StopLevel.LEAVE))
        try:
            await asyncio.wait([life, leaving], return_when=asyncio.FIRST_COMPLETED)
            return await life if life.done() else INTERRUPTED
        except DriverError as error:
            if self._handle is None and self._interrupts.level:
                self._screen.note(f"{self._label}: {error}")
                return INTERRUPTED
            self._screen.error(f"{self._label}: {error}")
            return DRIVER_FAILED
        finally:
            await _cancel([life, leaving])
            await self._clean_up()

    def _open_logs(self) -> None:
        alloc, task = self._planned.alloc, self._planned.task.name
        for stream in _STREAMS:
            if self._session.collects_logs:
                reader: LogReader | LogFollower = LogFollower(alloc.log(task, stream))
            else:
                reader = LogReader(alloc.fifo(task, stream))
            self._readers.append(reader)
            self._logs.append(asyncio.create_task(self._show_log(reader, stream)))

    async def _show_log(self, reader: LogReader | LogFollower, stream: str) -> None:
        # The line about the start comes before the log.
        await self._may_read.wait()
        try:
            async for data in reader.chunks():
                self._screen.log(self._label, stream, data)
                await self._wait_for_room(stream)
        finally:
            self._screen.log_ended(self._label, stream)

    async def _wait_for_room(self, stream: str) -> None:
        """Waits until all output is written; the FIFO keeps further data meanwhile."""
        while True:
            if self._screen.has_room(stream):
                return
            await asyncio.sleep(_FULL_S)

    async def _life(self, *, stats: bool) -> int:
        start = time.monotonic()
        helpers = [asyncio.create_task(self._stop_when_wanted())]
        try:
            config, options = self._planned.config, self._planned.options
            self._handle = await self._restarter.start(lambda: self._session.start(config, options))
            elapsed_ms = (time.monotonic() - start) * 1000
            self._screen.event(self._label, f"Started in {elapsed_ms:.0f} ms")
            self._may_read.set()
            self._service.started()
            if self._interrupts.level:
                # An earlier stop had no effect if the driver did not know the task yet.
                helpers.append(asyncio.create_task(self._stop_when_wanted()))
            if stats:
                helpers.append(asyncio.create_task(self._show_stats()))
            result = await self._restarter.call(self._started, lambda: self._session.wait(self._id))
        finally:
            await _cancel(helpers)
        self._service.ended()
        if self._session.collects_logs:
            await self._destroy()  # completes the log files
        # The end of the log comes before the line about the end of the task.
        for reader in self._readers:
            reader.finish()
        await asyncio.wait(self._logs, timeout=_LOG_END_S)
        if not all(self._screen.has_room(stream) for stream in _STREAMS):
            self._screen.error(
                f"{self._label}: the end of the log is lost: the output has no space left"
            )
        self._screen.ended(self._label, result, time.monotonic() - start)
        return _exit_status(result)

    def _started(self) -> Handle | None:
        return self._handle

    async def _stop_when_wanted(self) -> None:
        """Calls StopTask at the first Ctrl-C, also during a start; sends SIGKILL at the second."""
        await self._interrupts.reached(StopLevel.STOP)
        task = self._planned.task
        stop = asyncio.create_task(
            self._attempt(self._session.stop, task.kill_timeout_s, task.kill_signal)
        )
        kill = asyncio.create_task(self._interrupts.reached(StopLevel.KILL))
        try:
            await asyncio.wait([stop, kill], return_when=asyncio.FIRST_COMPLETED)
            if not stop.done() and self._handle is not None:
                await self._attempt(self._session.signal, "SIGKILL")
            await stop
        finally:
            await _cancel([stop, kill])

    async def _attempt(self, call: Any, *arguments: Any) -> None:
        try:
            await self._restarter.call(self._started, lambda: call(self._id, *arguments))
        except DriverError as error:
            self._screen.error(f"{self._label}: not stopped: {error}")

    async def _show_stats(self) -> None:
        while True:
            with contextlib.suppress(DriverError):
                async for usage in self._session.stats(self._id, 1.0):
                    self._screen.stats(self._label, usage)
            await asyncio.sleep(1.0)  # as Nomad does, also after the plugin's death

    async def _clean_up(self) -> None:
        leaving = asyncio.create_task(self._interrupts.reached(StopLevel.LEAVE))
        destroy = asyncio.create_task(self._destroy())
        await asyncio.wait([leaving, destroy], return_when=asyncio.FIRST_COMPLETED)
        if not destroy.done():
            await asyncio.wait([destroy], timeout=_DESTROY_S)
        if not destroy.done():
            self._screen.error(
                f"{self._label}: not removed, the driver does not answer; the container has the"
                f" label of allocation {self._planned.config.alloc_id}"
            )
        await _cancel([leaving, destroy, *self._logs])
        for reader in self._readers:
            reader.close()

    async def _destroy(self) -> None:
        if self.removed:
            return
        # A plugin that died during a start may have left a container.
        try:
            await self._restarter.call(
                self._started, lambda: self._session.destroy(self._id, force=True)
            )
        except DriverError as error:
            self._screen.error(f"{self._label}: not removed: {error}")
        else:
            self.removed = True


async def _cancel(jobs: Sequence[asyncio.Task[Any]]) -> None:
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)


def _exit_status(result: ExitResult) -> int:
    """Returns the exit status for the shell: the task's exit code, 125 for a task with an error."""
    if result.error:
        return DRIVER_FAILED
    return result.exit_code or (128 + result.signal if result.signal else 0)
