"""Collects a stream of a task without Nomad's logmon: from a FIFO of the worker's to a sink.

A sink is `LogFiles` or `Journal`.

The FIFO lies in the task's state directory. The shim holds both ends, and the plugin holds the read
end too, so the content outlives each of them and the worker. The FIFO is the buffer for a full disk
or an absent journald as for a stopped reader: `LogBuffer` enlarges the FIFO, then drops and counts
the oldest lines.

A task that writes all the time would wake the worker for every 32 KiB, the most that a shim writes
at once. A wake-up costs more than the move of the bytes, and the shim waits meanwhile: splice()
locks the FIFO. So after a large move the FIFO is enlarged, and the worker pauses before the next
move. Measured with 1 GiB on two cores: 0.45 of the worker's CPU time, and 1.2 times the throughput.
A larger FIFO or a longer pause gave no more.

A collector is used like a `Keeper`.
"""

from __future__ import annotations

import os
import time

from proto.errors import Code
from proto.exhaustion import exhausted
from workers.log import log
from workers.logs import pipe
from workers.logs.buffer import LogBuffer
from workers.logs.journal import JournalBusyError
from workers.loop import HANG_UP, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.logs.journal import Journal
    from workers.logs.log_files import LogFiles
    from workers.loop import Loop, Timer
    from workers.protocol import WorkerSpec

_AGAIN_S = 1.0
_LARGE_MOVE_BYTES = 32 * 1024
_BUSY_BYTES = 256 * 1024
"""Capacity of the FIFO of a busy task; see `pipe` for the price of larger FIFOs."""
_PAUSE_S = 0.0001
_QUIET_S = 1.0


class Collector:
    """Collects one stream.

    Args:
        loop: the worker's loop.
        fifo: the open FIFO's read end; see `open_own_fifo`.
        spec: spec of the worker, with the limits of the buffer.
        sink: takes the bytes.
        on_hang_up: called once, when the shim has closed the FIFO and all bytes are written.
        on_stall: called with the sink's path when bytes cannot be written, or are written again.
    """

    # Class attributes take no memory of workers whose disk has space.
    _buffer: LogBuffer | None = None
    _timer: Timer | None = None
    _fails = False
    _awaited = -1
    _busy = False
    _quiet: Timer | None = None

    def __init__(
        self,
        loop: Loop,
        fifo: int,
        spec: WorkerSpec,
        sink: LogFiles | Journal,
        on_hang_up: Callable[[], None],
        on_stall: Callable[[str, LogBuffer], None],
    ) -> None:
        self.path = sink.path
        self.hung_up = False
        self._loop = loop
        self._reader = fifo
        self._spec = spec
        self._sink = sink
        self._on_hang_up = on_hang_up
        self._on_stall = on_stall
        loop.watch(fifo, READ, self._on_event)
        if pipe.capacity(fifo) > pipe.USUAL_BYTES:  # enlarged by an earlier worker
            self._quiet = loop.later(_QUIET_S, self._shrink)

    def paths(self) -> dict[str, str]:
        """Returns no path: the shim opens the FIFO by the FIFO's own path."""
        return {}

    def sources(self) -> list[str]:
        """Returns a path in /proc that opens the FIFO; the opener keeps the FIFO's bytes."""
        return [f"/proc/{os.getpid()}/fd/{self._reader}"] if self._reader >= 0 else []

    def hold(self, *, wanted: bool) -> bool:  # noqa: ARG002 - see `Keeper`
        """Returns True: no reader waits for a writer of this FIFO."""
        return True

    def unread(self) -> int:
        """Returns the number of bytes that are not written yet."""
        return pipe.unread(self._reader) if self._reader >= 0 else 0

    def wake(self) -> None:
        """Opens and closes the write end, after the end of the task.

        The kernel then reports HUP also if the shim closed before this worker opened the FIFO.
        """
        if self._reader >= 0 and not self.hung_up:
            writer = pipe.open_writer(self._reader)
            if writer >= 0:
                os.close(writer)

    def make_space(self) -> None:
        """Enlarges a full FIFO, so that a shim that waits for space can close."""
        if self._buffer is not None:
            self._buffer.make_space()

    def close(self) -> None:
        """Writes the rest if possible, and closes the FIFO and the files."""
        if self._reader < 0:
            return
        self._stop_waiting()
        self._loop.forget(self._reader)
        try:
            self._write_all()
            self._sink.finish()
        except OSError as error:
            lost = self.unread() + self._sink.unsent()
            log(f"worker: log {self.path} ends without the last {lost} bytes: {error}")
        self._sink.close()
        os.close(self._reader)
        self._reader = -1

    def _on_event(self, events: int) -> None:
        if self._fails and self._buffer is not None:
            if events & HANG_UP:  # the shim has closed, and the rest waits for the sink
                self._loop.forget(self._reader)
                self._buffer.stop()
            else:  # the first bytes after a FIFO without bytes
                self._buffer.filled()
        elif events & READ:
            self._move()
        else:
            self._end()

    def _move(self) -> None:
        try:
            count = self._sink.take(self._reader)
        except BlockingIOError:
            return
        except OSError as error:
            self._stall(error)
            return
        if not count:
            self._end()
        elif count >= _LARGE_MOVE_BYTES and self._sink.TAKES_ALL:
            self._gather()

    def _gather(self) -> None:
        """Enlarges the FIFO of a busy task, and lets the next bytes come together."""
        self._busy = True
        if self._quiet is None:
            pipe.resize(self._reader, min(_BUSY_BYTES, self._spec.log_buffer_bytes))
            self._quiet = self._loop.later(_QUIET_S, self._shrink)
        if pipe.capacity(self._reader) > pipe.USUAL_BYTES:
            time.sleep(_PAUSE_S)

    def _shrink(self) -> None:
        """Gives the FIFO the usual capacity, unless the task is busy or the sink takes nothing."""
        busy, self._busy, self._quiet = self._busy, False, None
        if busy or self._fails or not pipe.resize(self._reader, pipe.USUAL_BYTES):
            self._quiet = self._loop.later(_QUIET_S, self._shrink)

    def _end(self) -> None:
        try:
            self._sink.finish()
        except OSError as error:
            self._stall(error)
            return
        self._stop_waiting()
        self._loop.forget(self._reader)
        self.hung_up = True
        self._on_hang_up()

    def _stall(self, error: OSError) -> None:
        """Leaves the bytes in the FIFO, and tries again after a pause."""
        if not isinstance(error, JournalBusyError):
            log(f"worker: log {self.path} cannot be written, will retry: {error}")
        self._fails = True
        self._buffer = LogBuffer(
            self._loop, self._reader, self._spec, self._on_event, self._report_stall
        )
        self._buffer.problem = error.strerror or str(error)
        self._buffer.filled()
        self._await_sink(error)

    def _await_sink(self, error: OSError) -> None:
        if isinstance(error, JournalBusyError):
            self._awaited = error.descriptor
            self._loop.watch(self._awaited, WRITE, self._on_space)
        else:
            self._timer = self._loop.later(_AGAIN_S, self._again)

    def _on_space(self, _: int) -> None:
        self._loop.forget(self._awaited)
        self._again()

    def _again(self) -> None:
        """Writes all bytes that wait; after another failure the wait goes on."""
        try:
            self._sink.flush()
            self._write_all()
        except OSError as error:
            self._await_sink(error)
            return
        self._fails = False
        if self._buffer is not None:
            self._buffer.resume()  # with events of the FIFO, also of one that the shim has closed

    def _write_all(self) -> None:
        """Writes all bytes that wait now.

        Raises:
            OSError: the sink takes nothing.
        """
        waiting = self.unread()
        try:
            while waiting > 0:
                waiting -= self._sink.take(self._reader) or waiting
        except BlockingIOError:
            return  # all is written, or was dropped

    def _report_stall(self) -> None:
        if self._buffer is not None:
            self._on_stall(self.path, self._buffer)

    def _stop_waiting(self) -> None:
        if self._buffer is not None:
            self._buffer.stop()
        for timer in (self._timer, self._quiet):
            if timer is not None:
                timer.cancel()
        self._loop.forget(self._awaited)


def open_own_fifo(directory: int, name: str) -> int:
    """Opens the read end of a FIFO in the task's state directory; creates the FIFO if missing.

    Only root can write to the directory.

    Raises:
        DriverError: code PRECONDITION or EXHAUSTED.
    """
    try:
        try:  # noqa: SIM105 - workers do without contextlib
            os.mkfifo(name, 0o600, dir_fd=directory)
        except FileExistsError:  # of an earlier worker of the task
            pass
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=directory)
    except OSError as error:
        raise exhausted(
            f"cannot open the task's log FIFO {name}", error, code=Code.PRECONDITION
        ) from error
