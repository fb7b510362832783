"""EventActor: sends the events of all tasks to the subscribers."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, assert_never

from actors.loop_actor import LoopActor
from proto.values import dataclass

if TYPE_CHECKING:
    from actors.model.nomad import TaskEvent

QUEUE_LENGTH = 1024
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Send an event to every subscriber."""

    event: TaskEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe:
    """Put all later events into `queue`."""

    queue: asyncio.Queue[TaskEvent]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe:
    """Put no more events into `queue`."""

    queue: asyncio.Queue[TaskEvent]


EventMessage = Publish | Subscribe | Unsubscribe


class EventActor(LoopActor):
    """Owner of the list of subscribers. The actor never blocks.

    A subscriber that does not read loses the oldest events; QUEUE_LENGTH events are kept. The first
    subscriber also receives earlier events: after a restart of the plugin, an agent recovers tasks
    first and subscribes to events later.
    """

    def __init__(self) -> None:
        super().__init__()
        self._subscribers: dict[int, asyncio.Queue[TaskEvent]] = {}
        self._early: deque[TaskEvent] | None = deque(maxlen=QUEUE_LENGTH)

    def on_receive(self, message: EventMessage) -> None:
        """Handles one message."""
        match message:
            case Publish(event=event):
                if self._early is not None:
                    self._early.append(event)
                for queue in self._subscribers.values():
                    _put(queue, event)
            case Subscribe(queue=queue):
                self._subscribers[id(queue)] = queue
                early, self._early = self._early or (), None
                for event in early:
                    _put(queue, event)
            case Unsubscribe(queue=queue):
                self._subscribers.pop(id(queue), None)
            case _:
                assert_never(message)


def _put(queue: asyncio.Queue[TaskEvent], event: TaskEvent) -> None:
    if queue.full():
        lost = queue.get_nowait()
        _log.warning(
            "task event dropped: the agent does not read events", extra={"task_id": lost.task_id}
        )
    queue.put_nowait(event)
