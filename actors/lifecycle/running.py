"""The parts of a running task, and the plugin's services that all tasks share."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.model import task_logs
from actors.model.node import Node
from proto.values import dataclass
from workers import protocol

if TYPE_CHECKING:
    import pykka

    from actors.handles.handle import HandleState
    from actors.lifecycle.admission import Admission
    from actors.model.gates import Gates
    from actors.model.nomad import NetworkOverride
    from actors.model.task_logs import LogTarget
    from actors.processes.apparmor_loader import ProfileLoader
    from actors.processes.launcher_link import LauncherLink
    from actors.processes.worker_link import WorkerLink
    from workers.protocol import ExitRecord

_ANSWER_S = 0.01


class Releases:
    """Releases of pinned mount sources that answered starts finish in the background.

    Each is known by its container: a next start of the same task uses the same names, so the start
    waits. One object for the life of the plugin, used on the event loop only.
    """

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[None]] = {}

    def begin(self, container_id: str, release: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs a release in the background, a moment later: the answer to Nomad goes first."""

        async def run() -> None:
            await asyncio.sleep(_ANSWER_S)
            await release()

        running = asyncio.get_running_loop().create_task(run())
        self._running[container_id] = running
        running.add_done_callback(lambda _: self._running.pop(container_id, None))

    async def finished(self, container_id: str) -> None:
        """Waits until no release of the container runs."""
        if (running := self._running.get(container_id)) is not None:
            await asyncio.wait([running])


@dataclass(frozen=True, slots=True, kw_only=True)
class Services(Node):
    """The plugin's services for all tasks. One object for each configuration of the driver.

    `admission`, `releases` and `shim_groups` are the same objects in all of them.
    """

    loop: asyncio.AbstractEventLoop
    executor: concurrent.futures.Executor
    boot_id: str
    launcher: LauncherLink
    images: pykka.ActorRef[Any]
    events: pykka.ActorRef[Any]
    admission: Admission
    releases: Releases
    apparmor: ProfileLoader

    def within(self, namespace: str) -> Services:
        """Returns the services for tasks in another namespace of containerd."""
        if namespace == self.namespace:
            return self
        containerd = self.containerd.within(namespace)
        return dataclasses.replace(self, containerd=containerd, namespace=namespace)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTask:
    """A task whose container exists.

    `link` is None while the task has no worker: then `exit` is set, or a new worker is on its way.
    `services` have the task's own namespace of containerd. With `from_go_driver`, the Go driver
    started the task, and the worker relays the task's logs.
    """

    services: Services
    state: HandleState
    task_id: str
    alloc_id: str
    directory: Path
    link: WorkerLink | None
    exit: ExitRecord | None = None
    network: NetworkOverride | None = None
    from_go_driver: bool = False
    nomad_namespace: str = ""

    @property
    def gates(self) -> Gates:
        """The operator's gates for the task's job."""
        return self.services.settings.gates_of(self.nomad_namespace)


def worker_spec(
    services: Services,
    container_id: str,
    directory: Path,
    log: LogTarget,
    nomad_logs: tuple[str, str],
    **more: Any,
) -> protocol.WorkerSpec:
    """Builds the order for a new worker of a task.

    Args:
        services: name the limits of the log buffer.
        container_id: the container that the worker is named after.
        directory: the task's state directory.
        log: the collector of the task's log.
        nomad_logs: Nomad's paths for stdout and stderr.
        more: further fields of the order.
    """
    return protocol.WorkerSpec(
        name=container_id,
        dir=str(directory),
        log_buffer_bytes=services.settings.log_buffer_bytes,
        log_drops=services.settings.log_drops,
        **task_logs.worker_fields(log, nomad_logs),
        **more,
    )


async def watch(
    services: Services, container_id: str, pid: int, link: WorkerLink, *, host_kernel: bool
) -> bool:
    """Makes a worker wait for the task's exit at the task's shim.

    Args:
        services: with the task's namespace of containerd.
        container_id: the task's container.
        pid: the task's process, by which the shim is found; 0 where the process is not known.
        link: the worker.
        host_kernel: True if the runtime runs the task's processes on the host's kernel.

    Returns:
        False where no shim of the container is found that a worker can connect to.

    Raises:
        DriverError: the worker refuses, or is gone.
    """
    shim = await services.containerd.shim(container_id, pid)
    if shim is None:
        return False
    # Without the field a worker reads the cgroup, as the workers of earlier releases do.
    more = {} if services.cgroups else {"cgroup": False}
    answer = await link.request(
        protocol.WATCH,
        address=shim.address,
        api=shim.api,
        namespace=services.namespace,
        container_id=container_id,
        **more,
        host_kernel=host_kernel,
    )
    # A new worker of a running task reads the task's health for the watch, after the greeting.
    health = answer.get(protocol.HEALTH)
    if isinstance(health, str):
        link.health = health
    return True
