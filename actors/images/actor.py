"""ImageActor: looks up and pulls an image once for all tasks that wait for the image.

The actor also removes unused images, because only the actor knows the images that a start needs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, assert_never

from actors.asyncio_bridge import Reply, Work, spawn, tell
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
from actors.loop_actor import LoopActor
from actors.model.log_keys import elapsed_ms
from actors.model.nomad import TaskEvent

if TYPE_CHECKING:
    import pykka

    from actors.images.collector import ImageCollector

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pull:
    """A pull or a lookup that runs, and the requests that wait for the result."""

    number: int
    waiters: list[tuple[Reply[ImageReady], TaskIdentity]] = field(default_factory=list)
    handle: Work | None = None
    begun: float = field(default_factory=time.monotonic)


class ImageActor(LoopActor):
    """Owner of the running pulls and removals. The actor never blocks.

    The work runs as coroutines on the event loop; the puller is a separate process. An image is in
    use from the request until the start of the task has ended. An image in use is never removed. A
    request for an image waits while the image is being removed. Without a collector no image is
    ever removed.
    """

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
        self._in_use: dict[Reply[ImageReady], str] = {}
        self._removing: set[str] = set()
        self._deferred: list[EnsureImage] = []
        self._sweep: Work | None = None

    def on_start(self) -> None:
        """Schedules the first sweep for unused images."""
        self._sweep_later()

    def on_receive(self, message: ImageMessage) -> None:
        """Handles one message; see `actors.images.messages`."""
        match message:
            case EnsureImage():
                self._ensure(message)
            case LeaveImage(reply=reply):
                self._leave(reply)
            case PullProgressed(request=request, message=text):
                self._report(request, text)
            case PullEnded():
                self._ended(message)
            case ImagesUnused(names=names):
                self._remove_unused(names)
            case ImageRemoved(name=name):
                self._removed(name)
            case Retire():
                self._retire()
            case _:
                assert_never(message)

    def _ensure(self, message: EnsureImage) -> None:
        request = message.request
        keys = _keys(request, message.task)
        # The name of the image in an archive is unknown before the load.
        if request.name in self._removing or (request.archive and self._removing):
            _log.debug("image request waits for the removal of an image", extra=keys)
            self._deferred.append(message)
            return
        pull = self._pulls.get(request)
        if pull is not None:
            _log.debug("image request joins a running request", extra=keys)
            pull.waiters.append((message.reply, message.task))
            return
        _log.debug("image requested", extra={**keys, "policy": str(request.policy)})
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
        self._in_use.pop(reply, None)
        self._deferred = [message for message in self._deferred if message.reply is not reply]
        for request, pull in list(self._pulls.items()):
            pull.waiters = [entry for entry in pull.waiters if entry[0] is not reply]
            if not pull.waiters and pull.handle is not None:
                keys = {"image": request.written, "elapsed_ms": elapsed_ms(pull.begun)}
                _log.info("image pull cancelled: no task waits for the image", extra=keys)
                pull.handle.cancel()
                del self._pulls[request]

    def _ended(self, message: PullEnded) -> None:
        pull = self._pulls.get(message.request)
        if pull is None or pull.number != message.number:
            return  # the pull was cancelled
        del self._pulls[message.request]
        for reply, task in pull.waiters:
            self._log_end(message, pull, task)
            if message.ready is not None:
                self._in_use[reply] = message.ready.name
                reply.answer(message.ready)
            else:
                reply.fail(message.error or asyncio.CancelledError())

    def _log_end(self, message: PullEnded, pull: _Pull, task: TaskIdentity) -> None:
        keys: dict[str, object] = dict(_keys(message.request, task))
        keys["elapsed_ms"] = elapsed_ms(pull.begun)
        if message.ready is not None:
            _log.debug("image ready", extra={**keys, "digest": message.ready.digest})
        else:
            reason = str(message.error) or type(message.error).__name__
            _log.debug("image not available", extra={**keys, "reason": reason})

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
                reason = str(error) or type(error).__name__
                _log.debug("sweep for unused images skipped", extra={"reason": reason})
            tell(ref, ImagesUnused(names=names or ()))

        self._sweep = spawn(self._loop, sweep(), done)

    def _busy(self) -> set[str]:
        return {request.name for request in self._pulls} | set(self._in_use.values())

    def _remove_unused(self, names: tuple[str, ...]) -> None:
        collector = self._collector
        if collector is None:
            return
        # Computed again: since the sweep, starts may have requested images.
        busy = self._busy()
        loading = any(request.archive for request in self._pulls)
        for name in () if loading else names:
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

    def _report(self, request: ImageRequest, text: str) -> None:
        pull = self._pulls.get(request)
        for _, task in pull.waiters if pull else ():
            _log.debug("image pull reports", extra={**_keys(request, task), "reason": text})
            event = TaskEvent(
                task_id=task.task_id,
                alloc_id=task.alloc_id,
                task_name=task.task_name,
                timestamp_ns=time.time_ns(),
                message=text,
                annotations={"image": request.written},
            )
            tell(self._events, Publish(event=event))


def _keys(request: ImageRequest, task: TaskIdentity) -> dict[str, str]:
    return {"task_id": task.task_id, "alloc_id": task.alloc_id, "image": request.written}
