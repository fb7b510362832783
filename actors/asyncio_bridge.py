"""Calls between actor threads and the event loop. Neither side blocks the other.

An actor starts a coroutine with `spawn` and receives the result as a message. A caller on the loop
sends a `Reply` to an actor and awaits the reply's future; `await pykka_future` would block the
loop. `tell` has pykka's name for a message without an answer.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar, cast

import pykka

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Reply(Generic[T]):
    """Answer to a request. Created on the event loop; the first answer from any thread counts."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self._loop.create_future()

    def answer(self, value: T) -> None:
        """Answers the request; later calls change nothing."""
        self._once(lambda: self.future.set_result(value))

    def fail(self, error: BaseException) -> None:
        """Fails the request; later calls change nothing."""
        self._once(lambda: self.future.set_exception(error))

    def settle(self, value: T | None, error: BaseException | None) -> None:
        """Answers with `value`, or fails with `error`. Has the form of `spawn`'s `done`."""
        if error is not None:
            self.fail(error)
        else:
            self.answer(cast("T", value))

    def _once(self, action: Callable[[], None]) -> None:
        def settle() -> None:
            if not self.future.done():
                action()

        # The loop is closed when the process leaves; then no caller waits for the answer.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(settle)


def tell(ref: pykka.ActorRef[Any], message: object) -> bool:
    """Sends a message. Returns False when the actor has ended, which is no error of the sender."""
    try:
        ref.tell(message)
    except pykka.ActorDeadError:
        _log.debug(
            "actor has ended, message dropped", extra={"message_type": type(message).__name__}
        )
        return False
    return True


def spawn(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, T],
    done: Callable[[T | None, BaseException | None], object],
) -> concurrent.futures.Future[T]:
    """Runs a coroutine on the loop from any thread.

    Args:
        loop: the plugin's event loop.
        coroutine: the work.
        done: called on the loop's thread with (result, None) or (None, error). Must not block.

    Returns:
        A handle; `cancel()` cancels the coroutine, and `done` receives the CancelledError.
    """

    async def run() -> T:
        try:
            result = await coroutine
        except BaseException as error:
            done(None, error)
            raise
        done(result, None)
        return result

    future = asyncio.run_coroutine_threadsafe(run(), loop)
    # `done` has received the error; reading the error keeps asyncio from logging the error again.
    future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return future
