"""The end of an ActorGateway inside a test's process. The product's actors end with the process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pykka

from actors.actor_gateway import ActorGateway
from actors.model.settings import DriverSettings
from actors.task.actor import TaskActor

_SETTLE_S = 1.0


class Daemon(Protocol):
    """A containerd, real or fake."""

    address: str
    namespace: str


def settings(containerd: Daemon, state_dir: Path) -> DriverSettings:
    """Builds settings that measure nothing of this machine and remove no image."""
    return DriverSettings(
        containerd_address=containerd.address,
        containerd_namespace=containerd.namespace,
        state_dir=str(state_dir),
        total_mhz=1000,
        cores=1,
        image_gc=False,
    )


@contextlib.asynccontextmanager
async def configured(containerd: Daemon, state_dir: Path) -> AsyncIterator[ActorGateway]:
    """Yields a configured gateway, which ends with the block."""
    gateway = ActorGateway()
    await gateway.configure(settings(containerd, state_dir))
    try:
        yield gateway
    finally:
        await shut_down(gateway)


async def shut_down(gateway: ActorGateway) -> None:
    """Ends the actors, connections and threads of a gateway. Tasks continue."""
    sweep = gateway._sweeper._task
    if sweep is not None:
        sweep.cancel()
    if releases := gateway._releases._running.values():
        await asyncio.wait([*releases], timeout=_SETTLE_S)
    tasks: list[pykka.ActorRef[TaskActor]] = pykka.ActorRegistry.get_by_class(TaskActor)
    actors: list[pykka.ActorRef[Any]] = [gateway._supervisor, *tasks, *gateway._images]
    for ref in (*actors, gateway._events):
        ref.stop(block=False)
    if gateway._services is not None:
        await gateway._services.containerd.close()
    gateway._executor.shutdown(wait=False, cancel_futures=True)
