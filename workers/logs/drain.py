"""Wait after a task's end until the shim has written all logs to the FIFOs, or is stuck.

containerd's Delete gives the shim two seconds to copy the rest of the logs and then drops the rest.
So the plugin deletes a task only after the report that the shim has closed all write ends.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workers.logs.streams import Stream
    from workers.loop import Loop, Timer

_CHECK_S = 0.25
_STUCK_S = 2.0
_LONGEST_S = 30.0


class Drain:
    """Watches the log streams of a task from the end of the task on.

    Args:
        loop: the worker's loop.
        streams: streams of the task's log; may be empty.
        done: called once: with True if the shim has written the whole logs.
    """

    def __init__(self, loop: Loop, streams: Sequence[Stream], done: Callable[[bool], None]) -> None:
        self._loop = loop
        self._streams = streams
        self._done = done
        self._timer: Timer | None = None
        self._has_begun = False
        self._is_over = False
        self._unread: list[int] = []
        self._still_s = 0.0
        self._total_s = 0.0

    def begin(self) -> None:
        """Starts the wait at the end of the task; `done` is called now or later."""
        if self._has_begun:
            return
        self._has_begun = True
        for stream in self._streams:
            stream.wake()
        self.check()
        if not self._is_over:
            self._timer = self._loop.later(_CHECK_S, self._tick)

    def check(self) -> None:
        """Ends the wait if the shim has closed all write ends."""
        if self._has_begun and all(stream.hung_up for stream in self._streams):
            self._finish(complete=True)

    def cancel(self) -> None:
        """Ends the wait without a call of `done`."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        """Ends the wait if no fill level has changed for a while; a reader changes the level."""
        unread = [stream.unread() for stream in self._streams]
        if unread != self._unread:
            self._still_s = 0.0
        else:
            self._still_s += _CHECK_S
            for stream in self._streams:
                stream.make_space()
        self._total_s += _CHECK_S
        self._unread = unread
        if self._still_s >= _STUCK_S or self._total_s >= _LONGEST_S:
            self._finish(complete=False)
        else:
            self._timer = self._loop.later(_CHECK_S, self._tick)

    def _finish(self, *, complete: bool) -> None:
        if self._is_over:
            return
        self.cancel()
        self._done(complete)
