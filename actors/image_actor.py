"""ImageActor: an image is looked up once and pulled once, however many tasks wait for it."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, assert_never

import pykka

from actors.bridge import Reply, spawn, tell
from actors.image_wire import ImageReady, ImageRequest, TaskIdentity
from actors.messages import (
    EnsureImage,
    ImageMessage,
    LeaveImage,
    Publish,
    PullEnded,
    PullProgressed,
)
from actors.nomad_types import TaskEvent
from actors.pull import ImageStore

if TYPE_CHECKING:
    import concurrent.futures

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pull:
    """One image under way and who waits for it."""

    number: int
    waiters: list[tuple[Reply[ImageReady], TaskIdentity]] = field(default_factory=list)
    handle: concurrent.futures.Future[ImageReady] | None = None


class ImageActor(pykka.ThreadingActor):
    """Owns the pulls that run. Blocks on nothing; stopped by the gateway's shutdown.

    The work runs as coroutines on the event loop; the puller is a process of its own.
    """

    use_daemon_thread = True

    def __init__(
        self, loop: asyncio.AbstractEventLoop, store: ImageStore, events: pykka.ActorRef[Any]
    ) -> None:
        super().__init__()
        self._loop = loop
        self._store = store
        self._events = events
        self._pulls: dict[ImageRequest, _Pull] = {}
        self._number = 0

    def on_receive(self, message: ImageMessage) -> None:
        """Handles one message; see `actors.messages`."""
        match message:
            case EnsureImage():
                self._ensure(message)
            case LeaveImage(reply=reply):
                self._leave(reply)
            case PullProgressed(request=request, message=text):
                self._publish(request, text)
            case PullEnded():
                self._ended(message)
            case _:
                assert_never(message)

    def on_stop(self) -> None:
        """Cancels what still runs."""
        for pull in self._pulls.values():
            if pull.handle is not None:
                pull.handle.cancel()

    def _ensure(self, message: EnsureImage) -> None:
        request = message.request
        pull = self._pulls.get(request)
        if pull is not None:
            pull.waiters.append((message.reply, message.task))
            return
        self._number += 1
        number = self._number
        pull = _Pull(number, [(message.reply, message.task)])
        self._pulls[request] = pull
        ref = self.actor_ref
        pull.handle = spawn(
            self._loop,
            self._store.ensure(
                request, lambda text: tell(ref, PullProgressed(request=request, message=text))
            ),
            lambda ready, error: tell(
                ref, PullEnded(request=request, number=number, ready=ready, error=error)
            ),
        )

    def _leave(self, reply: Reply[ImageReady]) -> None:
        for request, pull in list(self._pulls.items()):
            pull.waiters = [entry for entry in pull.waiters if entry[0] is not reply]
            if not pull.waiters and pull.handle is not None:
                _log.info("image pull cancelled: no task waits for it any more")
                pull.handle.cancel()
                del self._pulls[request]

    def _ended(self, message: PullEnded) -> None:
        pull = self._pulls.get(message.request)
        if pull is None or pull.number != message.number:
            return  # nobody waited for it any more
        del self._pulls[message.request]
        for reply, _ in pull.waiters:
            if message.ready is not None:
                reply.answer(message.ready)
            else:
                reply.fail(message.error or asyncio.CancelledError())

    def _publish(self, request: ImageRequest, text: str) -> None:
        pull = self._pulls.get(request)
        for _, task in pull.waiters if pull else ():
            event = TaskEvent(
                task_id=task.task_id,
                alloc_id=task.alloc_id,
                task_name=task.task_name,
                timestamp_ns=time.time_ns(),
                message=text,
                annotations={"image": request.written},
            )
            tell(self._events, Publish(event=event))
