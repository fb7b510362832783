"""stdout and stderr of a run: a full disk behind them holds a task's log up, and ends nothing.

What it does not take now comes first once there is room. Whoever shows a log waits for that, and
the log's FIFO keeps the rest, by the rules for a reader that stands still.
"""

from __future__ import annotations

import errno
import os
from typing import TextIO

from plugin.texts import indented
from proto.exhaustion import remedy

_KEPT_BYTES = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT}


class _Place:
    """What has been written last to a file or a terminal."""

    amid_a_line = False


class Outlet:
    """One of the two.

    Args:
        stream: where it leads.
        told: another one, that hears of what becomes of this; itself without.
    """

    def __init__(self, stream: TextIO, told: Outlet | None = None) -> None:
        self._name = stream.name.strip("<>")
        self._descriptor = stream.fileno()
        self._told = told or self
        self._rest = bytearray()
        self._full = False
        self._lost = 0
        self._place = told.place if told and _same(self, told) else _Place()

    @property
    def descriptor(self) -> int:
        """The number of the stream."""
        return self._descriptor

    @property
    def place(self) -> _Place:
        """Returns where the two are one file or one terminal, they have one place."""
        return self._place

    def put(self, data: bytes) -> None:
        """Writes, or keeps what is not taken now, up to a mebibyte."""
        if data:
            self._place.amid_a_line = not data.endswith(b"\n")
        if len(self._rest) > _KEPT_BYTES:
            self._lost += len(data)
        else:
            self._rest += data
        self.flush()

    def begin_a_line(self) -> None:
        """Ends a line that somebody has begun."""
        if self._place.amid_a_line:
            self.put(b"\n")

    def say(self, text: str) -> None:
        """Writes a line of its own, which says nothing to a terminal but text."""
        self.begin_a_line()
        self.put(f"{indented(text)}\n".encode())

    def flush(self) -> bool:
        """Writes what was kept; whether that is all of it."""
        try:
            while self._rest:
                del self._rest[: os.write(self._descriptor, self._rest)]
        except BlockingIOError:
            return False
        except OSError as error:
            self._refused(error)
            return not self._rest
        if self._full:
            self._full = False
            self._told.flush()
            if self._lost:
                self._told.say(f"error: {self._name}: {self._lost} bytes were lost")
        return True

    def end(self) -> bool:
        """Tries a last time; whether nothing was lost."""
        if self.flush() and not self._lost:
            return True
        if self is not self._told:
            lost = self._lost + len(self._rest)
            self._told.say(f"error: {self._name}: {lost} bytes were lost for want of room")
        return False

    def _refused(self, error: OSError) -> None:
        if error.errno not in _FULL:
            self._end_quietly(error)
        elif not self._full:
            self._full = True
            why = f"{error.strerror}: what comes waits for room ({remedy(error)})"
            self._told.say(f"error: {self._name}: {why}")

    def _end_quietly(self, error: OSError) -> None:
        """`run job | head` closes our stdout; the job goes on until it ends or Ctrl-C."""
        self._rest.clear()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._descriptor)
        os.close(null)
        if error.errno != errno.EPIPE and self is not self._told:
            self._told.say(f"error: {self._name}: {error.strerror}: nothing more is written there")


def _same(one: Outlet, other: Outlet) -> bool:
    return os.path.samestat(os.fstat(one.descriptor), os.fstat(other.descriptor))
