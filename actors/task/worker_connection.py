"""Connection of a TaskActor to the task's worker: ownership of links, and the worker's events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.asyncio_bridge import spawn, tell
from actors.lifecycle import teardown
from actors.task.messages import (
    Drained,
    Exited,
    HealthChanged,
    LogChanged,
    ProcessesKilled,
    Started,
    WorkerLost,
    WorkerRestored,
)
from workers import protocol
from workers.health.records import HealthState
from workers.protocol import ExitRecord, LogState

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    import pykka

    from actors.processes.worker_link import WorkerLink
    from actors.task.messages import TaskMessage
    from proto.frames import Frame


class WorkerConnection:
    """Owner of a task's link to the worker, also while the link is in a message to the actor.

    Args:
        loop: the plugin's event loop.
        actor: the TaskActor.
        is_removed: returns True after the removal of the task.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        actor: pykka.ActorRef[Any],
        is_removed: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._actor = actor
        self._is_removed = is_removed
        self._sent: WorkerLink | None = None
        self.link: WorkerLink | None = None

    def listen(self, link: WorkerLink) -> None:
        """Uses a new link: each event of the worker becomes a message to the actor."""
        self.link = link

        def receive(frame: Frame | None) -> None:
            message = _message(frame, link)
            if message is not None:
                tell(self._actor, message)

        link.listen(receive)

    def hand_over(self, message: Started | WorkerRestored | Exited) -> None:
        """Sends a message, perhaps with a new link, to the actor.

        The actor may stop at any moment. `close` finds a link that was sent before.
        """
        link = message.link if isinstance(message, WorkerRestored) else None
        if isinstance(message, Started) and message.task is not None:
            link = message.task.link
        self._sent = link or self._sent
        if not tell(self._actor, message) and link is not None:
            self._give_up(link)

    def close(self) -> None:
        """Closes the link, also a link whose message is still in the actor's inbox."""
        if self._sent is not None:
            self._give_up(self._sent)

    def _give_up(self, link: WorkerLink) -> None:
        """Ends the worker of a removed task. Workers of other tasks continue without the plugin."""
        if self._is_removed() and not link.closed:
            spawn(self._loop, teardown.end_worker(link), lambda _, __: None)
        else:
            link.drop()


def _message(frame: Frame | None, link: WorkerLink) -> TaskMessage | None:
    """Returns the message for an event of the worker; None for an event of a newer release.

    `frame` is None when the connection has ended.
    """
    match frame:
        case None:
            return WorkerLost(link=link)
        case {"event": protocol.EXIT}:
            return Exited(exit=ExitRecord.from_wire(frame))
        case {"event": protocol.DRAINED}:
            return Drained(complete=frame.get("complete") is True)
        case {"event": protocol.LOG}:
            return LogChanged(state=LogState.from_wire(frame))
        case {"event": protocol.HEALTH}:
            return HealthChanged(state=HealthState.from_wire(frame))
        case {"event": protocol.OOM, "kills": int(kills)}:
            return ProcessesKilled(kills=kills)
        case _:
            return None
