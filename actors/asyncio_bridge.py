"""Between actor threads and the event loop, without one ever blocking the other.

An actor starts a coroutine with `spawn` and hears of its end by a message. A caller on the loop
hands an actor a `Reply` and awaits its future; `await pykka_future` would block the loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import pykka

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Reply(Generic[T]):
    """The answer to one request: made on the loop, settled once from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self._loop.create_future()

    def answer(self, value: T) -> None:
        """Settles the request; later calls change nothing."""
        self._settle(lambda: self.future.set_result(value))

    def fail(self, error: BaseException) -> None:
        """Settles the request with an error; later calls change nothing."""
        self._settle(lambda: self.future.set_exception(error))

    def _settle(self, action: Callable[[], None]) -> None:
        def once() -> None:
            if not self.future.done():
                action()

        # The loop is closed when the process leaves: nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(once)


def tell(ref: pykka.ActorRef[Any], message: object) -> bool:
    """Sends an event; False when the actor is gone, which is no failure of the sender."""
    try:
        ref.tell(message)
    except pykka.ActorDeadError:
        _log.debug("message to an actor that has ended", extra={"kind": type(message).__name__})
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
        coroutine: what to run.
        done: called on the loop's thread with (result, None) or (None, error). It must not block.

    Returns:
        A handle whose `cancel()` cancels the coroutine; `done` then gets the CancelledError.
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
    # Every error went to `done`; this only marks it as seen.
    future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return future
