"""Keeps a log FIFO open: no line is lost and no process hangs, whichever process dies.

A keeper is a reader that never reads. Rules of the kernel and of Nomad shape the keeper:

- open(O_WRONLY) waits for a reader, so the keeper must be ready before the shim opens.
- The content of a FIFO is lost when the last descriptor of either end is closed.
- Nomad's logmon ends for good at the end of file, and a reader sees the end of file when no writer
  is left. So no process may open and close the write end before the shim has opened the write end.
  When the plugin of a start has died, the keeper holds the write end beside the shim: containerd
  ends that shim soon, and the shim of the next start opens later. Not before the shim: a death of
  the worker would end logmon then.
- A read end reports EPOLLHUP when a writer was present since the open and none is left: the shim
  has written everything and closed.
- A keeper with the read end open is itself a reader and cannot see another reader. With the write
  end alone, poll() reports EPOLLERR exactly while no reader is present. A reader that opens does
  not wake the poll, so a timer repeats the poll; only after the end of a task, never while a task
  runs.

So a keeper has three stages:

- LISTEN: holds the read end and waits for EPOLLHUP.
- OFFER: holds the write end, so a late reader neither hangs in open() nor finds the FIFO empty.
  When a reader is present and has read everything, the keeper closes the write end: the reader's
  end of file. A reader that was present all the time gets the end of file from the shim.
- RELEASE: the reader seen before may have been the shim, which closes its read end late, or a
  reader that was just being killed. So for ten seconds, and once more when the task is destroyed,
  the keeper opens and closes the write end for each reader that waits. Not for ever: the next
  start of the task has the same FIFO, and the logmon of that start must see no end of file.
"""

from __future__ import annotations

import os
import select

from workers.logs import pipe
from workers.logs.buffer import LogBuffer
from workers.loop import HANG_UP, READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.loop import Loop, Timer
    from workers.protocol import WorkerSpec

_SETTLE_S = 0.05
_OFFER_MAX_S = 1.0
_RELEASES = 10
"""Releases of waiting readers, within ten seconds."""


class Keeper:
    """Keeps a FIFO.

    Args:
        loop: the worker's loop.
        path: path of the FIFO that Nomad created; see `pipe.open_fifo`.
        spec: spec of the worker, with the limits for a stopped reader.
        on_hang_up: called once, when the shim has closed the write end.
        on_stall: called with the path when the reader has stopped or reads again.

    Raises:
        DriverError: see `pipe.open_fifo`.
    """

    # Used by the last two stages. Class attributes take no memory of workers with running tasks.
    _reference = -1  # reference to the FIFO after the close of both ends
    _releases = 0

    def __init__(
        self,
        loop: Loop,
        path: str,
        spec: WorkerSpec,
        on_hang_up: Callable[[], None],
        on_stall: Callable[[str, LogBuffer], None],
    ) -> None:
        self.path = path
        self.hung_up = False
        self._loop = loop
        self._on_hang_up = on_hang_up
        self._reader = open_log(path, os.O_RDONLY | os.O_NONBLOCK)
        self._writer = -1
        self._timer: Timer | None = None
        self._pause_s = _SETTLE_S
        self._last_unread = 0
        self._spec = spec
        self._on_stall = on_stall
        self._buffer: LogBuffer | None = None  # none for a task without output
        loop.watch(self._reader, HANG_UP | READ, self._on_event)

    def paths(self) -> dict[str, str]:
        """Returns the path of the FIFO, with a path in /proc that always opens the same FIFO.

        The path in /proc is valid during the first stage.
        """
        return {self.path: f"/proc/{os.getpid()}/fd/{self._reader}"}

    def sources(self) -> list[str]:
        """Returns no path: Nomad reads this FIFO."""
        return []

    def hold(self, *, wanted: bool) -> bool:
        """Opens the write end if the shim of a start has one; closes if not wanted.

        Returns:
            True if the keeper holds the write end, or comes too late: the shim has closed.
        """
        if self._reader < 0 or self.hung_up:
            return True
        if not wanted:
            self._close_writer()
        elif self._writer < 0 and pipe.has_writer(self._reader):
            self._writer = pipe.open_writer(self._reader)
        return self._writer >= 0

    def unread(self) -> int:
        """Returns the number of bytes in the FIFO that no reader has taken yet."""
        descriptor = self._reader if self._reader >= 0 else self._writer
        return pipe.unread(descriptor) if descriptor >= 0 else 0

    def wake(self) -> None:
        """Opens and closes the write end.

        The kernel then reports HUP also if the shim closed before the keeper opened. Only after the
        end of the task: without another writer a reader receives the end of file.
        """
        descriptor = max(self._reader, self._reference)  # at most one is open
        if self._writer < 0 and descriptor >= 0:
            self._writer = pipe.open_writer(descriptor)
            self._close_writer()

    def make_space(self) -> None:
        """Enlarges a full FIFO, so that a shim that waits for space can close."""
        if self._timer is None and self._buffer is not None:
            self._buffer.make_space()

    def close(self) -> None:
        """Closes the FIFO at once."""
        self._stop_buffer()
        if self._timer is not None:
            self._timer.cancel()
        if self._reader >= 0:
            self._loop.forget(self._reader)
            os.close(self._reader)
        if self._reference >= 0:
            os.close(self._reference)
            self._reference = -1
        self._close_writer()
        self._reader = -1

    def _on_event(self, events: int) -> None:
        if not events & HANG_UP:
            self._filled()
            return
        self.hung_up = True
        self._stop_buffer()
        self._loop.forget(self._reader)
        # The shim closes the write end first, and the own read end a moment later. The pause lets
        # the shim close, because the read end would count as a reader of the logs.
        self._timer = self._loop.later(_SETTLE_S, self._hold_writer)
        self._on_hang_up()

    def _filled(self) -> None:
        if self._buffer is None:
            self._buffer = LogBuffer(
                self._loop, self._reader, self._spec, self._on_event, self._report_stall
            )
        self._buffer.filled()

    def _report_stall(self) -> None:
        if self._buffer is not None:
            self._on_stall(self.path, self._buffer)

    def _stop_buffer(self) -> None:
        if self._buffer is not None:
            self._buffer.stop()

    def _hold_writer(self) -> None:
        self._writer = pipe.open_writer(self._reader)
        if self._writer < 0:  # no descriptor left: the log stays in the FIFO; try again later
            self._timer = self._loop.later(_OFFER_MAX_S, self._hold_writer)
            return
        self._reference = pipe.reference(self._reader)
        os.close(self._reader)
        self._reader = -1
        self._last_unread = self.unread()
        self._check_reader()

    def _check_reader(self) -> None:
        unread = self.unread()
        if self._writer < 0:
            self.wake()
            self._releases += 1
            if self._releases == _RELEASES:
                return
        elif unread == 0 and self._has_reader():
            self._close_writer()
        moved = unread != self._last_unread
        self._last_unread = unread
        self._pause_s = _SETTLE_S if moved else min(self._pause_s * 2, _OFFER_MAX_S)
        self._timer = self._loop.later(self._pause_s, self._check_reader)

    def _close_writer(self) -> None:
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def _has_reader(self) -> bool:
        poll = select.poll()
        poll.register(self._writer, 0)
        return not poll.poll(0)


def open_log(path: str, flags: int) -> int:
    """Opens a log FIFO of Nomad's with `pipe.open_fifo`.

    Raises:
        DriverError: see `pipe.open_fifo`.
    """
    return pipe.open_fifo(
        path,
        flags,
        brief="cannot keep the log FIFO {} open",
        resolution="Nomad creates the FIFO at the start of the task; no other file may replace it",
    )
