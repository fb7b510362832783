"""ActorGateway: the implementation of the gateway with actors. Creates and connects the actors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pykka

from actors.asyncio_bridge import Reply, tell
from actors.blocking.threads import Threads
from actors.events import QUEUE_LENGTH, EventActor, Subscribe, Unsubscribe
from actors.exec.collect import collect
from actors.exec.session import stream
from actors.exec.tail import TailBudget
from actors.gateway import Gateway
from actors.health import confinement_checks, fingerprint
from actors.images.actor import ImageActor
from actors.images.collector import ImageCollector
from actors.images.messages import Retire
from actors.images.pullers import Pullers
from actors.images.store import ImageStore
from actors.lifecycle.admission import STARTS_PER_CORE, Admission
from actors.lifecycle.running import Releases, RunningTask, Services
from actors.messages import (
    Configure,
    DestroyUnknown,
    ForTask,
    RecoverTask,
    StartTask,
    SupervisorMessage,
)
from actors.model import cpu_topology
from actors.model.cpu_topology import NodeSpeed
from actors.model.log_keys import task_keys
from actors.model.node import this_node
from actors.model.nomad import ExecInput, ExecOutput, ExecResult, ExitResult
from actors.model.shim_groups import ShimGroups
from actors.model.task_logs import DRIVER
from actors.orphans import sweeper
from actors.orphans.sweeper import Sweeper
from actors.processes import worker_link
from actors.processes.apparmor_loader import ProfileLoader
from actors.processes.launcher_link import LauncherLink
from actors.supervisor import Supervisor
from actors.task.messages import Inspect, Locate, Signal, Stop, TaskRequest, Wait
from actors.task.usage import UsageTracker
from containerd.security.policy import apparmor_is_enabled
from proto.errors import Code, DriverError
from workers import identity

if TYPE_CHECKING:
    from actors.model.nomad import (
        Fingerprint,
        StartedTask,
        TaskConfig,
        TaskEvent,
        TaskStatus,
        TaskUsage,
    )
    from actors.model.settings import DriverSettings, TaskOptions

T = TypeVar("T")
# A recovery waits so long for exhausted resources: Nomad destroys a task after a failed recovery.
_RECOVER_S, _RECOVER_AGAIN_S = 60.0, 1.0
_STATS_RETRY_S = 0.5
_log = logging.getLogger(__name__)


class ActorGateway(Gateway):
    """Gateway over actors. The constructor starts the actors. Belongs to the event loop.

    The actors end with the process: see `plugin.serve`.

    Args:
        proxies: variables of the process's environment that name proxies.
    """

    def __init__(self, proxies: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._proxies = proxies or {}
        self._loop = asyncio.get_running_loop()
        self._executor = Threads()
        self._loop.set_default_executor(self._executor)
        self._exec_budget = TailBudget()
        self._configured = asyncio.Event()
        self._services: Services | None = None
        self._admission = Admission((os.cpu_count() or 1) * STARTS_PER_CORE)
        self._releases = Releases()
        self._shim_groups = ShimGroups()
        self._pullers = Pullers()
        self._images: list[pykka.ActorRef[Any]] = []
        self._events = EventActor.start()
        self._supervisor = Supervisor.start(self._make_services)
        self._sweeper = Sweeper(self._supervisor)
        self._maker = ""

    def _make_services(self, settings: DriverSettings) -> Services:
        """Creates the services of a configuration."""
        node = this_node(settings, self._maker)
        collector = None
        if settings.image_gc and settings.enabled:
            collector = ImageCollector(node.containerd, settings.image_gc_delay_s)
        for earlier in self._images:
            tell(earlier, Retire())
        images = ImageActor.start(
            self._loop,
            ImageStore(node.containerd, settings, self._pullers, node.maker, self._proxies),
            self._events,
            collector,
        )
        self._images.append(images)
        self._services = Services(
            settings=settings,
            loop=self._loop,
            executor=self._executor,
            containerd=node.containerd,
            namespace=node.namespace,
            cgroup_v2=node.cgroup_v2,
            rootless=node.rootless,
            cgroups=node.cgroups,
            maker=node.maker,
            boot_id=identity.boot_id(),
            launcher=LauncherLink(Path(settings.state_dir)),
            images=images,
            events=self._events,
            admission=self._admission,
            releases=self._releases,
            shim_groups=self._shim_groups,
            apparmor=ProfileLoader(Path(settings.state_dir)),
        )
        return self._services

    async def configure(self, settings: DriverSettings) -> None:
        """See `Gateway`."""
        settings = cpu_topology.completed(settings)
        self._maker = await self._sweeper.announce(settings, Path(settings.state_dir))
        earlier, reply = self._services, Reply[None]()
        await self._ask(Configure(settings=settings, reply=reply), reply)
        if (services := self._ready()) is not earlier:
            await asyncio.to_thread(sweeper.release_mounts, services)
            self._sweeper.begin(services)
            if confinement_checks.loads_profile(settings) and apparmor_is_enabled():
                services.apparmor.begin()
            keys = {"namespace": services.namespace, "state_dir": settings.state_dir}
            _log.debug("driver configured", extra=keys)
        self._configured.set()

    def collects_logs(self) -> bool:
        """See `Gateway`."""
        services = self._services
        return services is not None and services.settings.log_collection == DRIVER

    def creates_networks(self) -> bool:
        """See `Gateway`."""
        services = self._services
        return services is not None and services.settings.network_creation == DRIVER

    async def start_task(self, task: TaskConfig, options: TaskOptions) -> StartedTask:
        """See `Gateway`."""
        await self._sweeper.add_agent(task)
        reply: Reply[StartedTask] = Reply()
        return await self._ask(StartTask(task=task, options=options, reply=reply), reply)

    async def recover_task(self, task: TaskConfig, version: int, driver_state: bytes) -> None:
        """See `Gateway`."""
        await self._sweeper.add_agent(task)
        until = self._loop.time() + _RECOVER_S
        while True:
            reply: Reply[None] = Reply()
            request = RecoverTask(
                task=task, version=version, driver_state=driver_state, reply=reply
            )
            try:
                await self._ask(request, reply)
            except DriverError as error:
                if error.code is not Code.EXHAUSTED or self._loop.time() > until:
                    raise
                keys = {**task_keys(task), "reason": str(error)}
                _log.warning("recovery of task failed, trying again", extra=keys)
                await asyncio.sleep(_RECOVER_AGAIN_S)
            else:
                return

    async def wait_task(self, task_id: str) -> ExitResult:
        """See `Gateway`."""
        reply: Reply[ExitResult] = Reply()
        return await self._of_task(task_id, Wait(reply=reply), reply)

    async def stop_task(self, task_id: str, timeout_s: float, signal: str) -> None:
        """See `Gateway`."""
        reply: Reply[None] = Reply()
        try:
            await self._of_task(
                task_id, Stop(timeout_s=timeout_s, signal=signal, reply=reply), reply
            )
        except DriverError as error:
            # Nomad would repeat the stop for minutes. A task without an actor counts as stopped.
            if error.code is not Code.NOT_FOUND:
                raise

    async def destroy_task(self, task_id: str, *, force: bool) -> None:
        """See `Gateway`."""
        reply: Reply[None] = Reply()
        await self._ask(DestroyUnknown(task_id=task_id, force=force, reply=reply), reply)

    async def inspect_task(self, task_id: str) -> TaskStatus:
        """See `Gateway`."""
        reply: Reply[TaskStatus] = Reply()
        return await self._of_task(task_id, Inspect(reply=reply), reply)

    async def signal_task(self, task_id: str, signal: str) -> None:
        """See `Gateway`."""
        reply: Reply[None] = Reply()
        await self._of_task(task_id, Signal(signal=signal, reply=reply), reply)

    async def task_stats(self, task_id: str, interval_s: float) -> AsyncGenerator[TaskUsage, None]:
        """See `Gateway`. The worker takes samples only while the iterator is open."""
        settings = self._ready().settings
        node = NodeSpeed(total_mhz=settings.total_mhz, cores=settings.cores)
        tracker = UsageTracker(task_id, node)
        interval_s = settings.stats_interval_s or interval_s
        while (running := await self._locate(task_id)) is not None:
            samples = worker_link.samples(running.directory, interval_s)
            try:
                async with contextlib.aclosing(samples):
                    async for sample in samples:
                        yield tracker.next(sample)
            except (OSError, DriverError) as error:
                # The worker may have died: the next worker is asked after a pause.
                if isinstance(error, DriverError) and error.code is Code.UNSUPPORTED:
                    raise
            await asyncio.sleep(min(interval_s, _STATS_RETRY_S))

    async def task_events(self) -> AsyncGenerator[TaskEvent, None]:
        """See `Gateway`."""
        queue: asyncio.Queue[TaskEvent] = asyncio.Queue(QUEUE_LENGTH)
        tell(self._events, Subscribe(queue=queue))
        try:
            while True:
                yield await queue.get()
        finally:
            tell(self._events, Unsubscribe(queue=queue))

    async def fingerprints(self) -> AsyncGenerator[Fingerprint, None]:
        """See `Gateway`."""
        await self._configured.wait()
        async for state in fingerprint.watch(self._ready()):
            yield state

    async def exec_task(self, task_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        """See `Gateway`."""
        running = await self._running(task_id)
        return await collect(running, command, timeout_s, self._exec_budget)

    async def exec_task_streaming(
        self, task_id: str, command: Sequence[str], *, tty: bool, inputs: AsyncIterator[ExecInput]
    ) -> AsyncGenerator[ExecOutput, None]:
        """See `Gateway`."""
        running = await self._running(task_id)
        session = stream(running, command, terminal=tty, inputs=inputs)
        async with contextlib.aclosing(session):
            async for output in session:
                yield output

    def _ready(self) -> Services:
        if self._services is None:
            raise DriverError("the driver is not configured yet", code=Code.PRECONDITION)
        return self._services

    async def _locate(self, task_id: str) -> RunningTask | None:
        reply: Reply[RunningTask | None] = Reply()
        return await self._of_task(task_id, Locate(reply=reply), reply)

    async def _running(self, task_id: str) -> RunningTask:
        running = await self._locate(task_id)
        if running is None:
            raise DriverError(
                "cannot run a command in the task: the task does not run", code=Code.PRECONDITION
            )
        return running

    async def _of_task(self, task_id: str, request: TaskRequest, reply: Reply[T]) -> T:
        return await self._ask(ForTask(task_id=task_id, request=request), reply)

    async def _ask(self, message: SupervisorMessage, reply: Reply[T]) -> T:
        if not tell(self._supervisor, message):
            raise DriverError("the driver is shutting down", code=Code.UNAVAILABLE)
        return await reply.future
