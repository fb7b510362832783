"""ImageActor: an image is looked up once and pulled once, however many tasks wait for it.

It also removes images that nobody needs: it alone knows which ones a start is about to use.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, assert_never

import pykka

from actors.asyncio_bridge import Reply, spawn, tell
from actors.events import Publish
from actors.images.messages import (
    EnsureImage,
    ImageMessage,
    ImageReady,
    ImageRemoved,
    ImageRequest,
    ImagesUnused,
    LeaveImage,
    PullEnded,
    PullProgressed,
    Retire,
    TaskIdentity,
)
from actors.images.store import ImageStore
from actors.model.nomad import TaskEvent

if TYPE_CHECKING:
    import concurrent.futures

    from actors.images.collector import ImageCollector

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pull:
    """One image under way and who waits for it."""

    number: int
    waiters: list[tuple[Reply[ImageReady], TaskIdentity]] = field(default_factory=list)
    handle: concurrent.futures.Future[ImageReady] | None = None


class ImageActor(pykka.ThreadingActor):
    """Owns the pulls and removals that run. Blocks on nothing; stopped by the gateway's shutdown.

    The work runs as coroutines on the event loop; the puller is a process of its own. An image is
    held from the request for it until its start has ended; what is held is not removed, and a
    request for what is being removed waits for the removal's end. Without a collector nothing is
    ever removed.
    """

    use_daemon_thread = True

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: ImageStore,
        events: pykka.ActorRef[Any],
        collector: ImageCollector | None = None,
    ) -> None:
        super().__init__()
        self._loop = loop
        self._store = store
        self._events = events
        self._pulls: dict[ImageRequest, _Pull] = {}
        self._number = 0
        self._collector = collector
        self._held: dict[Reply[ImageReady], str] = {}
        self._removing: set[str] = set()
        self._deferred: list[EnsureImage] = []
        self._sweep: concurrent.futures.Future[tuple[str, ...]] | None = None

    def on_start(self) -> None:
        """Begins to look for unused images."""
        self._sweep_later()

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
            case ImagesUnused(names=names):
                self._collect(names)
            case ImageRemoved(name=name):
                self._removed(name)
            case Retire():
                self._retire()
            case _:
                assert_never(message)

    def on_stop(self) -> None:
        """Cancels what still runs."""
        self._retire()
        for pull in self._pulls.values():
            if pull.handle is not None:
                pull.handle.cancel()

    def _ensure(self, message: EnsureImage) -> None:
        request = message.request
        # What an archive brings has a name that nobody knows yet.
        if request.name in self._removing or (request.archive and self._removing):
            self._deferred.append(message)
            return
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
        self._held.pop(reply, None)
        self._deferred = [message for message in self._deferred if message.reply is not reply]
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
                self._held[reply] = message.ready.name
                reply.answer(message.ready)
            else:
                reply.fail(message.error or asyncio.CancelledError())

    def _sweep_later(self) -> None:
        collector = self._collector
        if collector is None:
            return
        ref, busy = self.actor_ref, self._busy()

        async def sweep() -> tuple[str, ...]:
            await asyncio.sleep(collector.pause_s)
            return await collector.due(busy)

        def done(names: tuple[str, ...] | None, error: BaseException | None) -> None:
            if error is not None:
                _log.debug("no look for unused images", extra={"why": str(error)})
            tell(ref, ImagesUnused(names=names or ()))

        self._sweep = spawn(self._loop, sweep(), done)

    def _busy(self) -> set[str]:
        return {request.name for request in self._pulls} | set(self._held.values())

    def _collect(self, names: tuple[str, ...]) -> None:
        collector = self._collector
        if collector is None:
            return
        # Asked again: the sweep's own look is old by now.
        busy = self._busy()
        loads = any(request.archive for request in self._pulls)
        for name in () if loads else names:
            if name not in busy and name not in self._removing:
                self._removing.add(name)
                self._remove(collector, name)
        self._sweep_later()

    def _remove(self, collector: ImageCollector, name: str) -> None:
        ref = self.actor_ref

        def done(_: None, __: BaseException | None) -> None:
            tell(ref, ImageRemoved(name=name))

        spawn(self._loop, collector.remove_quietly(name), done)

    def _removed(self, name: str) -> None:
        self._removing.discard(name)
        deferred, self._deferred = self._deferred, []
        for message in deferred:
            self._ensure(message)

    def _retire(self) -> None:
        self._collector = None
        if self._sweep is not None:
            self._sweep.cancel()

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
