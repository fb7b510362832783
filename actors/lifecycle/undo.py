"""The undo steps of a start: each step of the start adds its own, and a failure runs them all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from actors.lifecycle.retry import Retry
from containerd.api import deadlines
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from actors.step_log import StepLog
    from containerd.api.client import Containerd

T = TypeVar("T")
# For all undo steps together.
_UNDO_S, _UNDO_SILENT_S = 60.0, 5.0


class Undo:
    """Undo steps of one attempt, run in the reverse order of their registration.

    Args:
        containerd: the undo gets less time while containerd gives no answers.
        log: gets one line for each undo step.
    """

    def __init__(self, containerd: Containerd, log: StepLog) -> None:
        self._containerd = containerd
        self._log = log
        self._steps = AsyncExitStack()
        self._retry = Retry(0.0)
        self._cause = ""
        self.left: list[str] = []
        """The undo steps that failed."""

    def wait_for_containerd(self) -> None:
        """Lets undo steps wait while containerd is away: from now on the start creates objects."""
        self._retry = Retry()

    def later(self, name: str, undo: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Registers an undo step. The step's own failure is logged and hides no other failure.

        Args:
            name: the object, for the log and for the error of an incomplete undo.
            undo: removes the object; repeated while containerd is away.
            *arguments: of `undo`.
        """

        async def step() -> None:
            try:
                await self._retry(lambda: undo(*arguments))
            except (DriverError, OSError) as error:
                self.left.append(name)
                self._log.warning(f"undo of a start failed: {name}", reason=str(error))
            else:
                self._log(f"start undone: {name}", reason=self._cause)

        self._steps.push_async_callback(step)

    async def create(
        self,
        creating: Awaitable[T],
        name: str,
        undo: Callable[..., Awaitable[object]],
        *arguments: object,
    ) -> T:
        """Creates an object, and registers its undo whatever the outcome: an answer can get lost.

        An object that existed before belongs to an earlier start. The removal of that start's
        objects has another order, so no undo is registered.

        Args:
            creating: the call that creates the object.
            name: the object, for the log and for the error of an incomplete undo.
            undo: removes the object.
            *arguments: of `undo`.

        Raises:
            DriverError: the failure of the call.
        """
        existed = False
        try:
            return await creating
        except DriverError as error:
            existed = error.code is Code.ALREADY_EXISTS
            raise
        finally:
            if not existed:
                self.later(name, undo, *arguments)

    async def run(self, cause: BaseException) -> None:
        """Runs all undo steps; call with `to_its_end`.

        Args:
            cause: the failure of the start. A containerd that has just timed out, and gives no
                answer now, would not answer the undo steps either: they get little time.
        """
        self._cause = str(cause) or type(cause).__name__
        silent = cause.code is Code.TIMEOUT if isinstance(cause, DriverError) else True
        short = silent and not await self._containerd.answers()
        with deadlines.within(_UNDO_SILENT_S if short else _UNDO_S):
            await self._steps.aclose()


async def to_its_end(undo: Coroutine[Any, Any, None]) -> None:
    """Runs the undo of a start to its end, even when the start is cancelled meanwhile.

    Steps must not overtake each other: containerd never finds a task again whose container is
    removed before the task.
    """
    undoing = asyncio.ensure_future(undo)
    while not undoing.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([undoing])
    undoing.result()
