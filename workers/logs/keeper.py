"""Keeps a log FIFO open: no line is lost and no process hangs, whichever process dies.

A keeper is a reader that never reads. Rules of the kernel and of Nomad shape the keeper:

- open(O_WRONLY) waits for a reader, so the keeper must be ready before the shim opens.
- The content of a FIFO is lost when the last descriptor of either end is closed.
- Nomad's logmon ends for good at the end of file, and a reader sees the end of file when no writer
  is left. So no process may open and close the write end before the shim has opened the write end.
  When the plugin of a start has died, the keeper holds the write end beside the shim: the shim may
  end before the shim of the next start opens.
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
- FAREWELL: the reader seen before may have been the shim, which closes its read end late, or a
  reader that was just being killed. So for ten seconds, and once more when the task is destroyed,
  the keeper opens and closes the write end for each reader that waits. Not for ever: the next
  start of the task has the same FIFO, and the logmon of that start must see no end of file.
"""

from __future__ import annotations

import os
import select
import stat

from proto.errors import Code, DriverError
from proto.exhaustion import advice
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
_FAREWELLS = 10
"""Made in ten seconds at most."""


class Keeper:
    """Keeps one FIFO.

    Args:
        loop: the worker's loop.
        path: the FIFO, as Nomad made it. It and the directories that tasks can write to must not be
            links: root would open any file.
        spec: of the task; says what is done while nobody reads.
        on_hang_up: called once, when the shim has closed its end.
        on_stall: called with the path when reading has stopped or begun again.

    Raises:
        DriverError: there is no such FIFO, or it is something else.
    """

    # Of the last stages only: what is set here takes no memory of workers whose task runs.
    _place = -1  # names the FIFO when neither end is held any more
    _farewells = 0

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
        self._reader = open_fifo(path, os.O_RDONLY | os.O_NONBLOCK)
        self._writer = -1
        self._timer: Timer | None = None
        self._pause_s = _SETTLE_S
        self._last_unread = 0
        self._spec = spec
        self._on_stall = on_stall
        self._buffer: LogBuffer | None = None  # a task that says nothing needs none
        loop.watch(self._reader, HANG_UP | READ, self._on_event)

    def held(self) -> tuple[str, str]:
        """Its path, and one to open the very FIFO that is open here, whatever lies at its own.

        For as long as the first stage lasts.
        """
        return self.path, f"/proc/{os.getpid()}/fd/{self._reader}"

    def hold(self, *, wanted: bool) -> bool:
        """Holds the write end, if the shim of a start has opened it, for as long as it is wanted.

        Returns whether it is held.
        """
        if not wanted:
            self._let_go()
        elif self._writer < 0 and pipe.has_writer(self._reader):
            self._writer = pipe.open_writer(self._reader)
        return self._writer >= 0

    def unread(self) -> int:
        """Bytes in the FIFO that no reader has taken yet."""
        descriptor = self._reader if self._reader >= 0 else self._writer
        return pipe.unread(descriptor) if descriptor >= 0 else 0

    def nudge(self) -> None:
        """Has the kernel tell HUP when the shim closed before this keeper was opened.

        Opens and closes the write end. Only when the task is known to have ended: without another
        writer that is EOF for the reader, and then rightly so.
        """
        held = max(self._reader, self._place)  # one of them at most
        if self._writer < 0 and held >= 0:
            self._writer = pipe.open_writer(held)
            self._let_go()

    def make_room(self) -> None:
        """Helps the shim to close: it may wait for room."""
        if self._timer is None and self._buffer is not None:
            self._buffer.make_room()

    def close(self) -> None:
        """Lets go of the FIFO at once."""
        self._look_no_more()
        if self._timer is not None:
            self._timer.cancel()
        if self._reader >= 0:
            self._loop.forget(self._reader)
            os.close(self._reader)
        if self._place >= 0:
            os.close(self._place)
            self._place = -1
        self._let_go()
        self._reader = -1

    def _on_event(self, events: int) -> None:
        if not events & HANG_UP:
            self._filled()
            return
        self.hung_up = True
        self._look_no_more()
        self._loop.forget(self._reader)
        # The shim closes its write end first and its own read end a moment later; wait for that, so
        # as not to take it for a reader of the logs.
        self._timer = self._loop.later(_SETTLE_S, self._hold_writer)
        self._on_hang_up()

    def _filled(self) -> None:
        if self._buffer is None:
            self._buffer = LogBuffer(
                self._loop, self._reader, self._spec, self._on_event, self._tell_stall
            )
        self._buffer.filled()

    def _tell_stall(self) -> None:
        if self._buffer is not None:
            self._on_stall(self.path, self._buffer)

    def _look_no_more(self) -> None:
        if self._buffer is not None:
            self._buffer.stop()

    def _hold_writer(self) -> None:
        self._writer = pipe.open_writer(self._reader)
        if self._writer < 0:  # no descriptors left: the log stays in the FIFO until there is one
            self._timer = self._loop.later(_OFFER_MAX_S, self._hold_writer)
            return
        self._place = pipe.name(self._reader)
        os.close(self._reader)
        self._reader = -1
        self._last_unread = self.unread()
        self._look()

    def _look(self) -> None:
        unread = self.unread()
        if self._writer < 0:
            self.nudge()
            self._farewells += 1
            if self._farewells == _FAREWELLS:
                return
        elif unread == 0 and self._has_reader():
            self._let_go()
        moved = unread != self._last_unread
        self._last_unread = unread
        self._pause_s = _SETTLE_S if moved else min(self._pause_s * 2, _OFFER_MAX_S)
        self._timer = self._loop.later(self._pause_s, self._look)

    def _let_go(self) -> None:
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def _has_reader(self) -> bool:
        poll = select.poll()
        poll.register(self._writer, 0)
        return not poll.poll(0)


def open_fifo(path: str, flags: int) -> int:
    """Looks before it opens: what a task puts there instead may be a link, a file or a device.

    Raises:
        DriverError: there is no FIFO at the path, or it cannot be opened in this way.
    """
    try:
        named = _name(path)
        try:
            if not stat.S_ISFIFO(os.fstat(named).st_mode):
                raise _unusable(path, "it is no FIFO")
            return os.open(f"/proc/self/fd/{named}", flags | os.O_CLOEXEC)
        finally:
            os.close(named)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error), advice(error)) from error


def _name(path: str) -> int:
    """A descriptor that only names what is there.

    No link is followed that a task of the group could have made: neither in the FIFO's place nor
    in that of the two directories above it, the allocation's `alloc/logs`.
    """
    base, *steps = path.rsplit("/", 3)
    descriptor = os.open(base or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for number, step in enumerate(steps, 1):
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        flags |= os.O_DIRECTORY if number < len(steps) else 0
        above = descriptor
        try:
            descriptor = os.open(step, flags, dir_fd=above)
        finally:
            os.close(above)
    return descriptor


def _unusable(path: str, why: str, scarce: str = "") -> DriverError:
    return DriverError(
        f"the log FIFO {path} cannot be kept open",
        details=why,
        resolution=scarce or "Nomad makes it when the task starts; nothing else may replace it",
        recoverable=bool(scarce),
        code=Code.EXHAUSTED if scarce else Code.PRECONDITION,
    )
