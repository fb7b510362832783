"""The end of an ActorGateway inside a test's process. The product's actors end with the process."""

from __future__ import annotations

from typing import Any

import pykka

from actors.actor_gateway import ActorGateway
from actors.task.actor import TaskActor

_SETTLE_S = 1.0


async def shut_down(gateway: ActorGateway) -> None:
    """Ends the actors, connections and threads of a gateway. Tasks continue."""
    sweep = gateway._sweeper._task
    if sweep is not None:
        sweep.cancel()
    await gateway._releases.settle(_SETTLE_S)
    tasks: list[pykka.ActorRef[TaskActor]] = pykka.ActorRegistry.get_by_class(TaskActor)
    actors: list[pykka.ActorRef[Any]] = [gateway._supervisor, *tasks, *gateway._images]
    for ref in (*actors, gateway._events):
        ref.stop(block=False)
    if gateway._services is not None:
        await gateway._services.containerd.close()
    gateway._executor.shutdown(wait=False, cancel_futures=True)
