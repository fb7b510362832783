"""The threads in which the plugin does what blocks: a few, and more where these stand still.

A thread that waits for a device or a file server cannot be ended. So where no thread has begun
anything for a moment and work waits, one more is made: what hangs takes a thread, not the pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_THREADS, _MOST = 4, 64
_MEET_S = 10.0
_STILL_S = 0.25


class Threads(ThreadPoolExecutor):
    """The event loop's executor; `submit` is for the loop's thread. Stopped by its maker."""

    def __init__(self) -> None:
        super().__init__(_THREADS, thread_name_prefix="blocking")
        self._loop = asyncio.get_running_loop()
        self._begun = 0
        # All there from now on: later the kernel may refuse one.
        meeting = threading.Barrier(_THREADS + 1)
        for _ in range(_THREADS):
            super().submit(meeting.wait, _MEET_S)
        meeting.wait(_MEET_S)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `ThreadPoolExecutor`."""

        def begin() -> T:
            self._begun += 1
            return fn(*args, **kwargs)

        future = super().submit(begin)
        self._loop.call_later(_STILL_S, self._look_after, future, self._begun)
        return future

    def _look_after(self, future: Future[T], begun: int) -> None:
        """Makes one more thread where nothing was begun since the last look."""
        if future.running() or future.done():
            return
        if begun == self._begun and len(self._threads) < _MOST:
            self._max_workers = len(self._threads) + 1
            self._adjust_thread_count()
        self._loop.call_later(_STILL_S, self._look_after, future, self._begun)

    def _adjust_thread_count(self) -> None:
        with contextlib.suppress(RuntimeError):  # the kernel refuses a thread; others are there
            super()._adjust_thread_count()
