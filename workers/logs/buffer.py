"""Keeps a task running while its log reader has stopped: enlarges the FIFO, then drops lines.

The FIFO itself is the buffer. A reader that is slow, stopped and continued, or new receives all
lines in order. No byte is copied. The buffer survives plugin, worker and containerd, because the
shim holds both ends. A file could not keep the order for a reader that was stopped and continues.
When the FIFO cannot grow, the oldest bytes are dropped, or the task waits: the operator chooses.

A reader has read between two checks if the FIFO holds less, if the time of the last read has
changed, or if the FIFO was full and a write succeeded all the same (see `pipe`). Without a read, a
full FIFO grows at once; bytes are dropped only after the whole grace time without a read.

Nothing is checked while nothing happens. The first byte in the FIFO wakes the worker, and a timer
repeats the check until the FIFO is empty: for a task that writes all the time 1.5 wake-ups a
second and 0.015 % of a core.

Limits: a dead reader that had read half a line leaves the other half joined to the first line
after the gap. A new worker asks the kernel for the size and the fill level of the FIFO, but does
not know the number of bytes that its predecessor dropped.
"""

from __future__ import annotations

from workers import protocol
from workers.logs import pipe
from workers.loop import HANG_UP, READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.loop import Loop, Timer

_GROWTH = 4
_PART_DROPPED = 4
# Pauses as parts of the grace time. With the default of 10 s: 2 s from the first byte to the first
# check and between checks while the reader is active, 1 s after a check without a read, and so on.
_CHECK, _AGAIN, _LATER, _SOON, _SHORTEST = 0.2, 0.1, 0.5, 0.025, 0.005


class LogBuffer:
    """Watches the fill level of a FIFO while the task runs.

    Args:
        loop: the worker's loop.
        descriptor: the FIFO's read end; the caller keeps the read end open until after `stop`.
        spec: spec of the worker: size limit of the FIFO, and the choice for a full FIFO.
        on_event: the caller's handler of the descriptor, which calls `filled` for READ.
        report: called after each change of `state`.
    """

    def __init__(
        self,
        loop: Loop,
        descriptor: int,
        spec: protocol.WorkerSpec,
        on_event: Callable[[int], None],
        report: Callable[[], None],
    ) -> None:
        self.state = protocol.READING
        self.problem = ""  # why the worker itself, as the reader, does not read
        self.dropped = 0
        self.limit = spec.log_buffer_bytes
        self._spec = spec
        self._loop = loop
        self._descriptor = descriptor
        self._on_event = on_event
        self._report = report
        self._timer: Timer | None = None
        self._unread = 0
        self._full = False
        self._times_ns = (0, 0)
        self._still = 0.0
        self._pause = _CHECK

    @property
    def kept(self) -> int:
        """Bytes that wait for a reader."""
        return pipe.unread(self._descriptor)

    def filled(self) -> None:
        """Starts the checks: the FIFO holds bytes, now or from the time of an earlier worker."""
        self._note()
        self._full = False
        self._check_later()

    def make_space(self) -> None:
        """Enlarges a full FIFO, so that a shim whose task has ended can write the rest."""
        if pipe.is_full(self._descriptor):
            self._grow()

    def stop(self) -> None:
        """Stops the checks."""
        if self._timer is not None:
            self._timer.cancel()

    def resume(self) -> None:
        """Stops the checks, and reports a reader: the worker itself has read all bytes."""
        self.stop()
        self._rest()

    def _check_later(self) -> None:
        self._loop.watch(self._descriptor, HANG_UP, self._on_event)
        pause_s = self._pause * self._spec.log_patience_ms / 1000
        self._timer = self._loop.later(pause_s, self._check)

    def _check(self) -> None:
        unread = self.kept
        if not unread:
            self._rest()
            return
        self._still += self._pause
        if self._was_read(unread):
            self._begin_anew()
        else:
            self._help(unread)
        # In this order: a write to the full FIFO after the note is a sign of a reader.
        self._full = pipe.is_full(self._descriptor)
        self._note()
        self._check_later()

    def _rest(self) -> None:
        """Shrinks the empty FIFO to the usual size, and stops the checks until the next byte."""
        if pipe.capacity(self._descriptor) != pipe.USUAL_BYTES:
            pipe.resize(self._descriptor, pipe.USUAL_BYTES)
        self.limit = self._spec.log_buffer_bytes
        self._begin_anew()
        self._loop.watch(self._descriptor, HANG_UP | READ, self._on_event)

    def _begin_anew(self) -> None:
        self._still, self._pause = 0.0, _CHECK
        self._set_state(protocol.READING)
        self.dropped = 0

    def _note(self) -> None:
        """Notes fill level and times for the next check, after the drops of the present check."""
        self._unread = self.kept
        self._times_ns = pipe.times_ns(self._descriptor)

    def _was_read(self, unread: int) -> bool:
        """Returns whether a reader has read since the last note."""
        read_ns, written_ns = pipe.times_ns(self._descriptor)
        if unread < self._unread or read_ns != self._times_ns[0]:
            return True
        return self._full and written_ns != self._times_ns[1]

    def _help(self, unread: int) -> None:
        """Grows the FIFO or drops bytes, after a check without a read."""
        full = pipe.is_full(self._descriptor)
        stalled = self._still >= 1.0
        known = self.state != protocol.READING and unread * 2 >= pipe.capacity(self._descriptor)
        if (full or known) and self._grow():
            self._pause = _SOON
        elif full and stalled and self._spec.log_drops:
            # Full at the last check too, and not written since: an active reader makes space.
            if self._full:
                self.dropped += pipe.discard(self._descriptor, max(1, unread // _PART_DROPPED))
                self._set_state(protocol.DROPPING)
                self._pause = max(min(self._pause, _AGAIN) / 2, _SHORTEST)
        else:
            if full and stalled:
                self._set_state(protocol.BLOCKED)
            is_idle = stalled and unread == self._unread
            self._pause = min(self._pause * 2, _LATER if is_idle else _AGAIN)
        if stalled and self.state == protocol.READING:
            self._set_state(protocol.STALLED)

    def _grow(self) -> bool:
        """Enlarges the FIFO; False if the limit is reached."""
        capacity = pipe.capacity(self._descriptor)
        if capacity >= self.limit:
            return False
        wanted = min(capacity * _GROWTH, self.limit)
        if pipe.resize(self._descriptor, wanted):
            return True
        allowed = pipe.largest_capacity()
        if capacity < allowed < wanted and pipe.resize(self._descriptor, allowed):
            self.limit = allowed
            return True
        self.limit = capacity
        return False

    def _set_state(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self._report()
