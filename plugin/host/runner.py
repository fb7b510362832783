"""Running a job: every allocation of every group, all tasks at once, until all have ended.

Whatever happens, started tasks are stopped and destroyed before the run returns; only SIGKILL of
the host leaves them running, as it would with an agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from actors.nomad_types import ExitResult, Health, Resources, TaskConfig
from plugin.host import interpolation
from plugin.host.allocdir import AllocDir
from plugin.host.jobfile import Job, JobGroup, JobTask
from plugin.host.logs import read_lines
from plugin.host.screen import Screen
from plugin.host.session import Handle, HostSession
from proto.errors import Code, DriverError

DRIVER_FAILED = 125
_MAX_RELAUNCHES = 5
_LOG_END_S = 5.0
_MIB = 1024 * 1024


@dataclass(slots=True)
class Run:
    """One task of one allocation, as it runs."""

    label: str
    task: JobTask
    config: TaskConfig
    options: dict[str, object]
    alloc: AllocDir
    handle: Handle | None = None
    result: ExitResult | None = None
    readers: list[asyncio.Task[None]] = field(default_factory=list)


class JobRunner:
    """Runs one job through one plugin session."""

    def __init__(
        self, session: HostSession, screen: Screen, alloc_root: Path, *, keep: bool
    ) -> None:
        self._session = session
        self._screen = screen
        self._root = alloc_root
        self._keep = keep
        self._stopping = asyncio.Event()
        self._hurry = False
        self._relaunch = asyncio.Lock()
        self._relaunches = 0

    async def run(self, job: Job) -> int:
        """Runs the job and returns the exit status for the shell.

        The task's own code where there is one task; the first that is not 0 of several; 125 when
        the driver failed.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        allocs: list[AllocDir] = []
        runs = self._plan(job, allocs)
        events = asyncio.create_task(self._show_events(runs))
        try:
            await self._session.launch()
            await self._check_health()
            outcomes = await asyncio.gather(*(self._one(run) for run in runs))
        finally:
            events.cancel()
            await asyncio.gather(events, return_exceptions=True)
            await self._session.close()
            for alloc in allocs if not self._keep else ():
                alloc.remove()
        return next((code for code in outcomes if code), 0)

    def _interrupt(self) -> None:
        if self._stopping.is_set():
            self._hurry = True
            self._screen.note("again: killing")
        else:
            self._screen.note("stopping (once more to kill)")
        self._stopping.set()

    def _plan(self, job: Job, allocs: list[AllocDir]) -> list[Run]:
        runs: list[Run] = []
        many = sum(group.count * len(group.tasks) for group in job.groups) > 1
        for group in job.groups:
            for index in range(group.count):
                alloc_id = str(uuid.uuid4())
                alloc = AllocDir(self._root, alloc_id)
                alloc.build([task.name for task in group.tasks])
                allocs.append(alloc)
                for task in group.tasks:
                    label = f"{group.name}[{index}].{task.name}" if many else task.name
                    runs.append(_run(job, group, task, alloc, alloc_id, index, label))
        return runs

    async def _check_health(self) -> None:
        look = await asyncio.wait_for(self._session.fingerprint(), 30)
        if look.health is not Health.HEALTHY:
            raise DriverError(
                "the driver is not healthy", details=look.description, code=Code.UNAVAILABLE
            )

    async def _one(self, run: Run) -> int:
        for stream in ("stdout", "stderr"):
            fifo = run.alloc.fifo(run.task.name, stream)
            run.readers.append(asyncio.create_task(self._read(run, fifo, stream)))
        begun = time.monotonic()
        try:
            try:
                run.handle = await self._session.start(run.config, run.options)
            except DriverError as error:
                self._screen.error(f"{run.label}: {error}")
                return DRIVER_FAILED
            ms = (time.monotonic() - begun) * 1000
            self._screen.event(run.label, f"Started in {ms:.0f} ms")
            return await self._until_end(run, begun)
        finally:
            await self._clean_up(run)

    async def _until_end(self, run: Run, begun: float) -> int:
        waiter = asyncio.create_task(self._wait(run))
        stopper = asyncio.create_task(self._stop_when_told(run))
        try:
            result = await waiter
        except DriverError as error:
            self._screen.error(f"{run.label}: {error}")
            return DRIVER_FAILED
        finally:
            for job in (waiter, stopper):
                job.cancel()
            await asyncio.gather(waiter, stopper, return_exceptions=True)
        # What the task wrote last comes before the word that it has ended.
        await asyncio.wait(run.readers, timeout=_LOG_END_S)
        self._screen.ended(run.label, result, time.monotonic() - begun)
        return result.exit_code if not result.error else DRIVER_FAILED

    async def _wait(self, run: Run) -> ExitResult:
        """WaitTask, over the deaths of the plugin: it is started again and takes the task back."""
        while True:
            try:
                return await self._session.wait(run.config.id)
            except DriverError as error:
                if self._session.alive or error.code is not Code.UNAVAILABLE:
                    raise
                await self._recover(run)

    async def _recover(self, run: Run) -> None:
        assert run.handle is not None  # noqa: S101 - only a started task is waited for
        async with self._relaunch:
            if not self._session.alive:
                self._relaunches += 1
                if self._relaunches > _MAX_RELAUNCHES:
                    raise DriverError(f"the plugin died {self._relaunches} times")
                self._screen.note("the plugin died; starting it again, tasks go on")
                await self._session.launch()
        await self._session.recover(run.handle)

    async def _stop_when_told(self, run: Run) -> None:
        await self._stopping.wait()
        stop = asyncio.create_task(
            self._session.stop(run.config.id, run.task.kill_timeout_s, run.task.kill_signal)
        )
        while not stop.done():
            if self._hurry:
                with contextlib.suppress(DriverError):
                    await self._session.signal(run.config.id, "SIGKILL")
                break
            await asyncio.wait([stop], timeout=0.1)
        with contextlib.suppress(DriverError):
            await stop

    async def _clean_up(self, run: Run) -> None:
        if run.handle is not None:
            try:
                await self._session.destroy(run.config.id, force=True)
            except DriverError as error:
                self._screen.error(f"{run.label}: not removed: {error}")
        for reader in run.readers:
            reader.cancel()
        await asyncio.gather(*run.readers, return_exceptions=True)

    async def _read(self, run: Run, fifo: Path, stream: str) -> None:
        await read_lines(fifo, lambda line: self._screen.log(run.label, stream, line))

    async def _show_events(self, runs: list[Run]) -> None:
        labels = {run.config.id: run.label for run in runs}
        while True:
            # A plugin that is not there yet, or just died, has no events to tell.
            with contextlib.suppress(DriverError):
                async for event in self._session.events():
                    label = labels.get(event.task_id)
                    if label is not None:
                        self._screen.event(label, event.message)
            await asyncio.sleep(0.02)


def _run(
    job: Job,
    group: JobGroup,
    task: JobTask,
    alloc: AllocDir,
    alloc_id: str,
    index: int,
    label: str,
) -> Run:
    env = interpolation.environment(job, group, task, alloc_id, index)
    try:
        for template in task.templates:
            alloc.write(task.name, template, interpolation.render(template.data, env))
    except ValueError as error:
        raise DriverError(f"{label}: {error}", code=Code.INVALID) from error
    memory_mb = max(task.memory_mb, task.memory_max_mb)
    config = TaskConfig(
        id=f"{alloc_id}/{task.name}/{uuid.uuid4().hex[:8]}",
        name=task.name,
        alloc_id=alloc_id,
        job_id=job.id,
        job_name=job.id,
        task_group_name=group.name,
        namespace=job.namespace,
        node_name="localhost",
        env=env,
        resources=Resources(
            cpu_shares=task.cpu_mhz,
            memory_mb=task.memory_mb,
            memory_max_mb=task.memory_max_mb,
            memory_limit_bytes=memory_mb * _MIB,
        ),
        user=task.user,
        alloc_dir=str(alloc.path),
        stdout_path=str(alloc.fifo(task.name, "stdout")),
        stderr_path=str(alloc.fifo(task.name, "stderr")),
    )
    return Run(
        label=label,
        task=task,
        config=config,
        options=interpolation.expand(task.config, env),
        alloc=alloc,
    )
