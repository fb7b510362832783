"""LoopActor: a pykka actor without a thread. The event loop handles the messages.

pykka's ThreadingActor has a thread for each actor: 2000 threads for 2000 tasks. No handler of this
driver blocks, so a thread adds only the switches to the thread and back.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pykka
from pykka.messages import _ActorStop  # pyright: ignore[reportPrivateUsage]


class _Inbox:
    """Messages of one actor, in order. Any thread may put a message; the loop takes each."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._envelopes: deque[Any] = deque()
        self.take: Callable[[], None] | None = None

    def put(self, envelope: Any, /) -> None:
        """Adds a message, and schedules one call of `take`. Never runs a handler itself."""
        self._envelopes.append(envelope)
        schedule = self._loop.call_soon
        if threading.get_ident() != self._thread:
            schedule = self._loop.call_soon_threadsafe
        # The loop is closed when the process leaves; then no handler runs any more.
        with contextlib.suppress(RuntimeError):
            schedule(self._take)

    def get(self) -> Any:
        """Returns and removes the oldest message."""
        return self._envelopes.popleft()

    def empty(self) -> bool:
        """Returns True if no message waits."""
        return not self._envelopes

    def _take(self) -> None:
        if self.take is not None:
            self.take()


class LoopActor(pykka.Actor):
    """Actor whose handlers run on the event loop, one at a time and in the order of the messages.

    `start` must be called on the loop; `tell` may be called on any thread. A sender never runs a
    handler: the handler begins in a later step of the loop. As with pykka's other actors, a stopped
    actor refuses messages with ActorDeadError, and an exception of a handler of `tell` calls
    `on_failure` and ends the actor. Only another thread may block until `ask` is answered or `stop`
    is done: on the loop such a wait would last for ever.
    """

    @staticmethod
    def _create_actor_inbox() -> _Inbox:
        return _Inbox()

    @staticmethod
    def _create_future() -> pykka.Future[Any]:
        return pykka.ThreadingFuture()

    def _start_actor_loop(self) -> None:
        inbox = self.actor_inbox
        assert isinstance(inbox, _Inbox)  # noqa: S101 - made above
        inbox.take = self._take
        try:
            self.on_start()
        except Exception:  # noqa: BLE001 - pykka logs the failure
            self._handle_failure(*sys.exc_info())

    def _take(self) -> None:
        """Handles the oldest message."""
        envelope = self.actor_inbox.get()
        if self.actor_stopped.is_set():
            self._refuse(envelope)
            return
        try:
            answer = self._handle_receive(envelope.message)
            if envelope.reply_to is not None:
                envelope.reply_to.set(answer)
        except Exception:  # noqa: BLE001 - the asker gets the failure, or pykka logs the failure
            self._fail(envelope)

    def _fail(self, envelope: Any) -> None:
        if envelope.reply_to is not None:
            envelope.reply_to.set_exception()
            return
        failure = sys.exc_info()
        self._handle_failure(*failure)
        try:
            self.on_failure(*failure)
        except Exception:  # noqa: BLE001 - pykka logs the failure
            self._handle_failure(*sys.exc_info())

    def _refuse(self, envelope: Any) -> None:
        """Answers a message that a stopped actor had in its inbox, as pykka does."""
        if envelope.reply_to is None:
            return
        if isinstance(envelope.message, _ActorStop):
            envelope.reply_to.set(None)
            return
        dead = pykka.ActorDeadError(f"{self.actor_ref} stopped before handling the message")
        envelope.reply_to.set_exception((pykka.ActorDeadError, dead, None))
