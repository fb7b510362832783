"""Runner of a job: all tasks of all allocations at once, until all have ended.

Started tasks are stopped and destroyed in any case before the run returns. Only a SIGKILL of the
dev host leaves tasks running, as with an agent; the next run removes these tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from actors.model.nomad import Health
from plugin.host.agent.plugin_restart import PluginRestarter
from plugin.host.agent.session import PluginSession
from plugin.host.job.jobfile import Job
from plugin.host.network.cni import BridgeNetwork
from plugin.host.network.ports import HostPorts
from plugin.host.run import alloc_plan
from plugin.host.run.alloc_plan import Alloc
from plugin.host.run.interrupts import Interrupts, StopLevel
from plugin.host.run.machine import HostOptions
from plugin.host.run.networks import AllocNetworks
from plugin.host.run.record import RunRecord
from plugin.host.run.screen import Screen
from plugin.host.run.systemd import ServiceManager
from plugin.host.run.task_runner import DRIVER_FAILED, INTERRUPTED, TaskRunner
from proto.errors import Code, DriverError
from proto.values import dataclass

_HEALTH_S = 90.0  # the start of a launcher may take a minute
_PAUSE_S = 0.1
_ADVICE = (
    "without containerd: apt-get install containerd runc;"
    " for another socket: --config containerd_address=PATH"
)
_NOTES = {
    StopLevel.STOP: "stopping (Ctrl-C again kills)",
    StopLevel.KILL: "killing (Ctrl-C again leaves everything as it is)",
    StopLevel.LEAVE: "leaving",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options of a run.

    Attributes:
        root: directory of the allocation directories.
        host: this machine as jobs see the machine.
        keep: True keeps the allocation directories.
        stats: True shows a sample of every task each second.
    """

    root: Path
    host: HostOptions
    keep: bool = False
    stats: bool = False


class JobRunner:
    """Runs one job through one plugin.

    Args:
        session: a plugin that is not launched yet.
        screen: shows the output of the run.
        service: reports running and ended tasks to systemd.
        record: lists on disk all objects that the run creates.
        options: options of the run.
    """

    def __init__(
        self,
        session: PluginSession,
        screen: Screen,
        service: ServiceManager,
        record: RunRecord,
        options: RunOptions,
    ) -> None:
        self._session = session
        self._screen = screen
        self._options = options
        self._ports = HostPorts(options.host.address)
        self._record = record
        bridge = BridgeNetwork(options.host.cni_directories, note=record.bridged)
        self._networks = AllocNetworks(bridge, screen.error)
        self._restarter = PluginRestarter(session, screen.note)
        self._held: set[Path] = set()
        self._service = service
        self._clean = True
        self._interrupts = Interrupts(self._note_stop)

    async def run(self, job: Job) -> int:
        """Runs the job and returns the exit status for the shell.

        The status is the exit code of the task, with several tasks the first code that is not 0,
        and 125 if the driver failed.

        Raises:
            DriverError: the run failed before the first start.
        """
        try:
            allocs = alloc_plan.allocations(
                job, self._options.root, self._ports, self._options.host.volumes, self._record.name
            )
            self._networks.check(allocs)
            self._record.begin(allocs)
            return await self._from_plan_to_end(job, allocs)
        finally:
            self._ports.close()
            self._record.end(clean=self._clean and self._networks.clean and not self._held)

    def _note_stop(self, level: StopLevel) -> None:
        self._screen.note(_NOTES[level])
        if level is StopLevel.STOP:
            self._service.stopping()

    async def _from_plan_to_end(self, job: Job, allocs: list[Alloc]) -> int:
        self._interrupts.listen()
        events = asyncio.create_task(self._show_events(allocs))
        try:
            for alloc in allocs:
                alloc_plan.build(alloc)
            if not await self._ready(job):
                return INTERRUPTED
            connected = await self._networks.set_up(allocs, lambda: bool(self._interrupts.level))
            if self._interrupts.level:
                return INTERRUPTED
            self._show_ports(connected)
            return await self._all(connected)
        finally:
            await self._networks.tear_down()
            await self._clean_up(allocs)
            events.cancel()
            await asyncio.gather(events, return_exceptions=True)
            await self._session.close()
            self._interrupts.ignore()

    def _show_ports(self, allocs: list[Alloc]) -> None:
        for alloc in allocs:
            # In mode "host" only tasks with `host_network` are in the network of the host.
            shared = any(
                task.options.get("host_network") or task.options.get("network_mode") == "host"
                for task in alloc.tasks
            )
            for port in alloc.ports if shared or alloc.mode == "bridge" else ():
                self._screen.port(alloc.label if len(allocs) > 1 else "", port)

    async def _ready(self, job: Job) -> bool:
        """Launches and checks the plugin; returns False if Ctrl-C came first."""
        ready = asyncio.create_task(self._check(job))
        stop = asyncio.create_task(self._interrupts.reached(StopLevel.STOP))
        await asyncio.wait([ready, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not ready.done():
            ready.cancel()
            await asyncio.gather(ready, return_exceptions=True)
            return False
        await ready
        return True

    async def _check(self, job: Job) -> None:
        """Checks the plugin: the driver of every task, and healthy."""
        await self._session.launch()
        name = self._session.info.name
        for task in (task for group in job.groups for task in group.tasks):
            if task.driver != name:
                raise DriverError(
                    f'task "{task.name}": driver "{task.driver}" cannot be run here',
                    resolution=f'set driver = "{name}"',
                    code=Code.INVALID,
                )
        fingerprint = await asyncio.wait_for(self._session.fingerprint(), _HEALTH_S)
        if fingerprint.health is not Health.HEALTHY:
            raise DriverError(
                "the driver is not healthy",
                details=fingerprint.description,
                resolution=_ADVICE if fingerprint.description.startswith("containerd ") else "",
                code=Code.UNAVAILABLE,
            )

    async def _all(self, allocs: list[Alloc]) -> int:
        runs = [
            (
                alloc,
                TaskRunner(
                    task,
                    self._session,
                    self._restarter,
                    self._screen,
                    self._interrupts,
                    self._service,
                ),
            )
            for alloc in allocs
            for task in alloc.tasks
        ]
        outcomes = await asyncio.gather(
            *(run.run(stats=self._options.stats) for _, run in runs), return_exceptions=True
        )
        self._held = {alloc.directory.path for alloc, run in runs if not run.removed}
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                self._screen.error(f"internal error: {outcome!r}")
        codes = [outcome if isinstance(outcome, int) else DRIVER_FAILED for outcome in outcomes]
        return next((code for code in codes if code), 0)

    async def _clean_up(self, allocs: list[Alloc]) -> None:
        for alloc in allocs:
            # A container that was not removed may still use its directory.
            if self._options.keep or alloc.directory.path in self._held:
                continue
            remaining = await asyncio.to_thread(alloc.directory.remove)
            if remaining:
                self._clean = False
                self._screen.error(
                    f"{alloc.label}: the directory is not wholly removed: {remaining}"
                )

    async def _show_events(self, allocs: list[Alloc]) -> None:
        labels = {task.config.id: task.label for alloc in allocs for task in alloc.tasks}
        while True:
            # The stream fails before the launch and after a death of the plugin.
            with contextlib.suppress(DriverError):
                async for event in self._session.events():
                    label = labels.get(event.task_id)
                    if label is not None:
                        self._screen.event(label, event.message)
            await asyncio.sleep(_PAUSE_S)
