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
# Pauses as parts of the patience: of its default of 10 s, 2 s from the first byte to the first look
# and between looks while somebody reads, 1 s when nobody did, and so on.
_LOOK, _AGAIN, _LATER, _SOON, _SHORTEST = 0.2, 0.1, 0.5, 0.025, 0.005


class LogBuffer:
    """Looks after the filling of one FIFO while its task runs.

    Args:
        loop: the worker's loop.
        descriptor: the FIFO's read end, kept open by the caller until after `stop`.
        spec: how much it may hold, and what happens then.
        on_event: the caller's handler of the descriptor, which calls `filled` for READ.
        tell: called whenever `state` has changed.
    """

    def __init__(
        self,
        loop: Loop,
        descriptor: int,
        spec: protocol.WorkerSpec,
        on_event: Callable[[int], None],
        tell: Callable[[], None],
    ) -> None:
        self.state = protocol.READING
        self.dropped = 0
        self.limit = spec.log_buffer_bytes
        self._spec = spec
        self._loop = loop
        self._descriptor = descriptor
        self._on_event = on_event
        self._tell = tell
        self._timer: Timer | None = None
        self._unread = 0
        self._full = False
        self._touched_ns = (0, 0)
        self._still = 0.0
        self._pause = _LOOK

    @property
    def kept(self) -> int:
        """Bytes that wait for a reader."""
        return pipe.unread(self._descriptor)

    def filled(self) -> None:
        """The FIFO is not empty any more, or a worker before this one has left it so."""
        self._note()
        self._full = False
        self._look_later()

    def make_room(self) -> None:
        """The task has ended and nothing moves: what its shim still holds should fit."""
        if pipe.is_full(self._descriptor):
            self._grow()

    def stop(self) -> None:
        """Looks no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_later(self) -> None:
        self._loop.watch(self._descriptor, HANG_UP, self._on_event)
        pause_s = self._pause * self._spec.log_patience_ms / 1000
        self._timer = self._loop.later(pause_s, self._look)

    def _look(self) -> None:
        unread = self.kept
        if not unread:
            self._rest()
            return
        self._still += self._pause
        if self._was_read(unread):
            self._begin_anew()
        else:
            self._help(unread)
        # In this order: what is written to a full FIFO after that is a sign of a reader.
        self._full = pipe.is_full(self._descriptor)
        self._note()
        self._look_later()

    def _rest(self) -> None:
        """All is read: small again, and no look until there is something."""
        if pipe.room(self._descriptor) != pipe.USUAL_BYTES:
            pipe.resize(self._descriptor, pipe.USUAL_BYTES)
        self.limit = self._spec.log_buffer_bytes
        self._begin_anew()
        self._loop.watch(self._descriptor, HANG_UP | READ, self._on_event)

    def _begin_anew(self) -> None:
        self._still, self._pause = 0.0, _LOOK
        self._say(protocol.READING)
        self.dropped = 0

    def _note(self) -> None:
        """What the next look compares with; what we took ourselves was no reader."""
        self._unread = self.kept
        self._touched_ns = pipe.touched_ns(self._descriptor)

    def _was_read(self, unread: int) -> bool:
        """Returns whether anybody has read since the last note."""
        read_ns, written_ns = pipe.touched_ns(self._descriptor)
        if unread < self._unread or read_ns != self._touched_ns[0]:
            return True
        return self._full and written_ns != self._touched_ns[1]

    def _help(self, unread: int) -> None:
        """Nothing was read since the last look."""
        full = pipe.is_full(self._descriptor)
        stalled = self._still >= 1.0
        known = self.state != protocol.READING and unread * 2 >= pipe.room(self._descriptor)
        if (full or known) and self._grow():
            self._pause = _SOON
        elif full and stalled and self._spec.log_drops:
            # Also at the last look, and nothing was written since, as it is where somebody reads.
            if self._full:
                self.dropped += pipe.discard(self._descriptor, max(1, unread // _PART_DROPPED))
                self._say(protocol.DROPPING)
                self._pause = max(min(self._pause, _AGAIN) / 2, _SHORTEST)
        else:
            if full and stalled:
                self._say(protocol.BLOCKED)
            settled = stalled and unread == self._unread
            self._pause = min(self._pause * 2, _LATER if settled else _AGAIN)
        if stalled and self.state == protocol.READING:
            self._say(protocol.STALLED)

    def _grow(self) -> bool:
        """More room, if there may be more."""
        room = pipe.room(self._descriptor)
        if room >= self.limit:
            return False
        wanted = min(room * _GROWTH, self.limit)
        if pipe.resize(self._descriptor, wanted):
            return True
        allowed = pipe.most_room()
        if room < allowed < wanted and pipe.resize(self._descriptor, allowed):
            self.limit = allowed
            return True
        self.limit = room
        return False

    def _say(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self._tell()
