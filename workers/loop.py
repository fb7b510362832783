"""Event loop of a worker, which has one thread: watched descriptors, and a few timers.

Without a timer the loop sleeps until a descriptor is ready: an idle worker never wakes up.
"""

from __future__ import annotations

import errno
import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANG_UP = select.EPOLLHUP
PRIORITY = select.EPOLLPRI


_TURNS = 2

_EVENTS = 32
"""Most events of a poll. The usual thousand would take memory of every worker while it sleeps."""


_LONGEST_S = 3600.0
"""Longest poll. The kernel counts milliseconds, up to 24.8 days; then the timers are read again."""


class Timer:
    """A call at a given time. `cancel` may come before or after, any number of times."""

    def __init__(self, due_s: float, call: Callable[[], None]) -> None:
        self.due_s = due_s
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        """Prevents the call."""
        self.cancelled = True


class Loop:
    """Owns the epoll descriptor. Handlers must not block and must not raise."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._timers: list[Timer] = []
        self._stopped = False

    def watch(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        """Calls handler(events) while the descriptor is ready. HUP and ERR are always reported."""
        known = self._watched.get(descriptor)
        if known is None:
            self._epoll.register(descriptor, events)
        elif known[0] != events:
            self._epoll.modify(descriptor, events)
        self._watched[descriptor] = (events, handler)

    def forget(self, descriptor: int) -> None:
        """Stops the watch. Must precede the close of the descriptor; -1 and strangers are fine."""
        if self._watched.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Calls `call` once after the given seconds."""
        timer = Timer(time.monotonic() + seconds, call)
        self._timers.append(timer)
        return timer

    def stop(self) -> None:
        """Ends `run` after the handlers of this round."""
        self._stopped = True

    def run(self) -> None:
        """Runs handlers and timers until `stop`."""
        while not self._stopped:
            try:
                ready = self._epoll.poll(self._timeout_s(), _EVENTS)
            except InterruptedError:
                continue
            for descriptor, events in ready:
                # An earlier handler of this round may have forgotten the descriptor.
                watched = self._watched.get(descriptor)
                if watched is not None:
                    watched[1](events)
            self._fire()

    def close(self) -> None:
        """Closes the epoll descriptor; the watched descriptors stay open."""
        self._watched.clear()
        self._timers.clear()
        self._epoll.close()

    def _timeout_s(self) -> float | None:
        due_s = None
        for timer in tuple(self._timers):
            if timer.cancelled:
                self._timers.remove(timer)
            elif due_s is None or timer.due_s < due_s:
                due_s = timer.due_s
        return None if due_s is None else min(_LONGEST_S, max(0.0, due_s - time.monotonic()))

    def _fire(self) -> None:
        if not self._timers:
            return
        now_s = time.monotonic()
        for timer in tuple(self._timers):
            if timer.due_s <= now_s:
                self._timers.remove(timer)
                if not timer.cancelled:
                    timer.call()


def would_block(error: OSError) -> bool:
    """Returns whether a non-blocking call failed only because the descriptor is not ready."""
    return error.errno in {errno.EAGAIN, errno.EINTR}


def until_next(interval_s: float) -> float:
    """Returns the seconds to the worker's next turn. Workers of a turn have the same clock.

    An interval has two turns: the plugin wakes up twice in an interval for fifty tasks, and gets
    the samples of thousands of tasks in two parts. Ten turns cost fifty tasks twice the CPU time.
    Two samples are never closer than half an interval.
    """
    now_s = time.monotonic() - interval_s * (os.getpid() % _TURNS) / _TURNS
    wait_s = interval_s - now_s % interval_s
    return wait_s if wait_s > interval_s / 2 else wait_s + interval_s
