"""The plugin's threads for blocking calls: a few, and more while these make no progress.

A thread that waits for a device or a file server cannot be ended. So the pool grows by a thread
when work waits and no thread has begun any work for a moment: a call that hangs costs a thread, and
does not stop the pool.
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
    """The event loop's executor. Only the loop's thread calls `submit`; the creator stops it."""

    def __init__(self) -> None:
        super().__init__(_THREADS, thread_name_prefix="blocking")
        self._loop = asyncio.get_running_loop()
        self._begun = 0
        # Starts all threads now: the kernel may refuse a thread later.
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
        self._loop.call_later(_STILL_S, self._grow_if_stuck, future, self._begun)
        return future

    def _grow_if_stuck(self, future: Future[T], begun: int) -> None:
        """Adds a thread if no work was begun since the last check."""
        if future.running() or future.done():
            return
        if begun == self._begun and len(self._threads) < _MOST:
            self._max_workers = len(self._threads) + 1
            self._adjust_thread_count()
        self._loop.call_later(_STILL_S, self._grow_if_stuck, future, self._begun)

    def _adjust_thread_count(self) -> None:
        with contextlib.suppress(RuntimeError):  # the kernel refuses a thread; the others go on
            super()._adjust_thread_count()
