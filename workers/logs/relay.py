"""Relays a task's log from the shim's FIFO to Nomad's FIFO.

Only for tasks that the Go driver started. The Go driver gave the shim other FIFOs than Nomad's, and
copied the logs in the plugin. Without the Go plugin no process reads the shim's FIFO, and the task
stops as soon as the FIFO is full.

splice() moves pages from pipe to pipe inside the kernel. So each byte is in exactly one pipe,
whichever process is killed.
"""

from __future__ import annotations

import os

from proto.errors import DriverError
from workers.log import log
from workers.logs import pipe
from workers.loop import HANG_UP, READ, WRITE, would_block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workers.loop import Loop

CAPACITY_BYTES = 1 << 20
"""Capacity of the shim's FIFO while Nomad's FIFO is full.

In Nomad's FIFO each line that arrived alone takes a page; the shim's FIFO packs the lines.
"""


class Relay:
    """Relays a log until the shim has closed the FIFO.

    Args:
        loop: the worker's loop.
        source: path of the shim's FIFO, in a directory of root's.
        sink: path in /proc that always opens the same FIFO of Nomad's; or /dev/null.

    Raises:
        DriverError: see `pipe.open_fifo`.
        OSError: the sink cannot be opened.
    """

    def __init__(self, loop: Loop, source: str, sink: str) -> None:
        self._loop = loop
        self._path = source
        self._is_waiting = False
        # Opened for reading too: so the pipe is never broken, and a write waits only for space.
        self._sink = os.open(sink, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._source = pipe.open_fifo(
                source,
                os.O_RDONLY | os.O_NONBLOCK,
                brief="cannot read the FIFO {}, to which the task's shim writes the log",
                resolution="let Nomad start the task again",
            )
        except DriverError:
            os.close(self._sink)
            raise
        # The kernel reports HUP only to a descriptor that was open before some writer. The shim may
        # have closed already, with the last lines still in the FIFO.
        writer = pipe.open_writer(self._source)
        if writer >= 0:
            os.close(writer)
        loop.watch(self._source, READ, self._move)

    def sources(self) -> list[str]:
        """Returns the path in /proc that opens the source; the opener keeps the FIFO's bytes."""
        return [f"/proc/{os.getpid()}/fd/{self._source}"]

    def close(self) -> None:
        """Stops the relay; bytes in the source stay there."""
        if self._source >= 0:
            self._loop.forget(self._source)
            self._loop.forget(self._sink)
            os.close(self._source)
            os.close(self._sink)  # the end of file for the reader of the log
            self._source = self._sink = -1

    def _move(self, events: int) -> None:
        try:
            moved = os.splice(self._source, self._sink, CAPACITY_BYTES, flags=os.SPLICE_F_NONBLOCK)
        except OSError as error:
            if would_block(error):
                self._await_space()
                # With a full sink splice reports no end, and HUP would keep the loop awake.
                if events & HANG_UP and not pipe.unread(self._source):
                    self.close()
                return
            log(f"worker: relay of log FIFO {self._path} failed: {error}")
            moved = 0
        if moved == 0:
            self.close()

    def _await_space(self) -> None:
        """Waits for space in a full sink, without events of the source."""
        if pipe.unread(self._source):
            self._loop.forget(self._source)
            self._loop.watch(self._sink, WRITE, self._on_space)
            if not self._is_waiting:
                pipe.resize(self._source, CAPACITY_BYTES)
            self._is_waiting = True
        elif self._is_waiting:
            pipe.resize(self._source, pipe.USUAL_BYTES)
            self._is_waiting = False

    def _on_space(self, _: int) -> None:
        self._loop.forget(self._sink)
        self._loop.watch(self._source, READ, self._move)
        self._move(0)
