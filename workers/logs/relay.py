"""Carries a task's log from the FIFO that its shim writes to on to Nomad's.

Only for tasks that the Go driver started. It had the shim write to FIFOs of its own and copied in
its plugin; when that is gone nobody reads them, and the task stops as soon as one is full.

splice moves pages from pipe to pipe inside the kernel: whoever is killed meanwhile, each byte is in
one of the two, and none in both.
"""

from __future__ import annotations

import os
import stat

from proto.errors import Code, DriverError
from workers import procfs
from workers.logs import pipe
from workers.loop import HANG_UP, READ, WRITE, would_block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workers.loop import Loop

ROOM_BYTES = 1 << 20
"""What the shim's FIFO holds while Nomad's is full.

In Nomad's each line that came alone takes a page; in the shim's they lie close together.
"""


class Relay:
    """Carries one log until the shim has closed its FIFO.

    Args:
        loop: the worker's loop.
        source: the shim's FIFO, in a directory of root's.
        sink: Nomad's, by a path that no swap of the FIFO leads elsewhere; or /dev/null.

    Raises:
        DriverError: there is no such source.
        OSError: the sink cannot be opened.
    """

    def __init__(self, loop: Loop, source: str, sink: str) -> None:
        self._loop = loop
        self._path = source
        self._waits = False
        # A reader too: so it is never broken, and "full" is all that there is to wait for.
        self._sink = os.open(sink, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._source = _open_fifo(source)
        except DriverError:
            os.close(self._sink)
            raise
        # The kernel tells HUP only to a descriptor that was there before some writer: the shim may
        # have closed, with its last lines still in the FIFO.
        writer = pipe.open_writer(self._source)
        if writer >= 0:
            os.close(writer)
        loop.watch(self._source, READ, self._move)

    def held(self) -> str:
        """A path by which others open the source that is open here; it keeps what is in there."""
        return f"/proc/{os.getpid()}/fd/{self._source}"

    def close(self) -> None:
        """Carries no more; what is left in the source stays there."""
        if self._source >= 0:
            self._loop.forget(self._source)
            self._loop.forget(self._sink)
            os.close(self._source)
            os.close(self._sink)  # the end of the log, for who reads it
            self._source = self._sink = -1

    def _move(self, events: int) -> None:
        try:
            moved = os.splice(self._source, self._sink, ROOM_BYTES, flags=os.SPLICE_F_NONBLOCK)
        except OSError as error:
            if would_block(error):
                self._await_room()
                # To a full sink splice tells nothing of the end, and that would wake us for ever.
                if events & HANG_UP and not pipe.unread(self._source):
                    self.close()
                return
            procfs.say(f"worker: {self._path} is not carried on any more: {error}")
            moved = 0
        if moved == 0:
            self.close()

    def _await_room(self) -> None:
        """The source is empty, or the sink is full and the source must not wake us up."""
        if pipe.unread(self._source):
            self._loop.forget(self._source)
            self._loop.watch(self._sink, WRITE, self._on_room)
            if not self._waits:
                pipe.resize(self._source, ROOM_BYTES)
            self._waits = True
        elif self._waits:
            pipe.resize(self._source, pipe.USUAL_BYTES)
            self._waits = False

    def _on_room(self, _: int) -> None:
        self._loop.forget(self._sink)
        self._loop.watch(self._source, READ, self._move)
        self._move(0)


def _open_fifo(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _unusable(path, "it is no FIFO")
    return descriptor


def _unusable(path: str, why: str) -> DriverError:
    return DriverError(
        f"the FIFO {path}, which the task's shim writes its log to, cannot be read",
        details=why,
        resolution="have Nomad start the task anew",
        code=Code.PRECONDITION,
    )
