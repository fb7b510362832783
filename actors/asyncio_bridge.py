"""Messages between actors and coroutines. Both run on the event loop, and neither waits in place.

An actor starts a coroutine with `spawn` and receives the result as a message. A caller sends a
`Reply` to an actor and awaits the reply's future; `await pykka_future` would block the loop. `tell`
has pykka's name for a message without an answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar, cast

import pykka

T = TypeVar("T")
_log = logging.getLogger(__name__)
# An event loop refers to its tasks weakly.
_works: set[asyncio.Task[Any]] = set()


class Reply(Generic[T]):
    """Answer to a request. Created and answered on the event loop; the first answer counts."""

    def __init__(self) -> None:
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def answer(self, value: T) -> None:
        """Answers the request; later calls change nothing."""
        if not self.future.done():
            self.future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Fails the request; later calls change nothing."""
        if not self.future.done():
            self.future.set_exception(error)

    def settle(self, value: T | None, error: BaseException | None) -> None:
        """Answers with `value`, or fails with `error`. Has the form of `spawn`'s `done`."""
        if error is not None:
            self.fail(error)
        else:
            self.answer(cast("T", value))


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


class Work:
    """A coroutine that `spawn` has started."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task

    def cancel(self) -> None:
        """Cancels the coroutine in a later step of the loop.

        The coroutine has begun by then, so its clean-up runs and `done` is called.
        """
        self._task.get_loop().call_soon(self._task.cancel)


def spawn(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, T],
    done: Callable[[T | None, BaseException | None], object],
) -> Work:
    """Runs a coroutine on the loop. Must be called on the loop.

    Args:
        loop: the plugin's event loop.
        coroutine: the work.
        done: called with (result, None) or (None, error). Must not block.

    Returns:
        A handle; `cancel()` cancels the coroutine, and `done` receives the CancelledError.
    """

    async def run() -> None:
        try:
            result = await coroutine
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - for `done`
            done(None, error)
        else:
            done(result, None)

    task = loop.create_task(run())
    _works.add(task)
    task.add_done_callback(_works.discard)
    return Work(task)


async def all_ended(*steps: Awaitable[Any]) -> list[Any]:
    """Runs steps together; raises the first failure when all steps have ended.

    A step that still runs would create objects beside the undo of the others.
    """
    outcomes = await asyncio.gather(*steps, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes
