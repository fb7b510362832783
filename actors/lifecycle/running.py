"""What a task that runs is made of: names, places and the links to what looks after it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.model.node import Node

if TYPE_CHECKING:
    import pykka

    from actors.handles.handle import HandleState
    from actors.model.nomad import NetworkOverride
    from actors.processes.launcher_link import LauncherLink
    from actors.processes.worker_link import WorkerLink
    from workers.protocol import ExitRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Services(Node):
    """What every task needs of the plugin. One object per configuration of the driver."""

    loop: asyncio.AbstractEventLoop
    executor: concurrent.futures.Executor
    boot_id: str
    launcher: LauncherLink
    images: pykka.ActorRef[Any]
    events: pykka.ActorRef[Any]

    def within(self, namespace: str) -> Services:
        """The same for tasks in another namespace of containerd."""
        if namespace == self.namespace:
            return self
        containerd = self.containerd.within(namespace)
        return dataclasses.replace(self, containerd=containerd, namespace=namespace)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTask:
    """A task whose container exists.

    link is None while the task has no worker: then `exit` is set, or a new worker is on its way.
    services have the containerd namespace that the task is in. from_go_driver tells that the Go
    driver started it, so that its worker relays its logs.
    """

    services: Services
    state: HandleState
    directory: Path
    link: WorkerLink | None
    exit: ExitRecord | None = None
    network: NetworkOverride | None = None
    from_go_driver: bool = False
