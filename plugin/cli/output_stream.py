"""stdout and stderr of a run: a full disk or a lost reader ends nothing.

Bytes that the stream does not accept now are kept, and written first when the stream has space
again. Until then a screen reads no further log data: the log's FIFO keeps the data, by the rules
for a log without a reader.
"""

from __future__ import annotations

import errno
import os
from typing import TextIO

from plugin.texts import indented
from proto.exhaustion import advice

_KEPT_BYTES = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT}


class _Cursor:
    """State of a file or a terminal: True in `in_line` if the last byte ended no line."""

    in_line = False


class OutputStream:
    """stdout or stderr.

    Args:
        stream: the Python stream.
        errors: another stream, for reports about this stream; without `errors` the stream itself.
    """

    def __init__(self, stream: TextIO, errors: OutputStream | None = None) -> None:
        self._name = stream.name.strip("<>")
        self._descriptor = stream.fileno()
        self._errors = errors or self
        self._rest = bytearray()
        self._full = False
        self._lost = 0
        self._cursor = errors.cursor if errors and _same_file(self, errors) else _Cursor()

    @property
    def descriptor(self) -> int:
        """The descriptor of the stream."""
        return self._descriptor

    @property
    def cursor(self) -> _Cursor:
        """The cursor; two streams to the same file or terminal share a cursor."""
        return self._cursor

    def write(self, data: bytes) -> None:
        """Writes data; keeps up to 1 MiB that is not accepted now, and drops more."""
        if data:
            self._cursor.in_line = not data.endswith(b"\n")
        if len(self._rest) > _KEPT_BYTES:
            self._lost += len(data)
        else:
            self._rest += data
        self.flush()

    def end_line(self) -> None:
        """Ends the current line, if the cursor is not at the start of a line."""
        if self._cursor.in_line:
            self.write(b"\n")

    def write_line(self, text: str) -> None:
        """Writes plain text as a separate line."""
        self.end_line()
        self.write(f"{indented(text)}\n".encode())

    def flush(self) -> bool:
        """Writes kept data; returns True if no kept data is left."""
        try:
            while self._rest:
                del self._rest[: os.write(self._descriptor, self._rest)]
        except BlockingIOError:
            return False
        except OSError as error:
            self._handle(error)
            return not self._rest
        if self._full:
            self._full = False
            self._errors.flush()
            if self._lost:
                self._errors.write_line(f"error: {self._name}: {self._lost} bytes were lost")
        return True

    def end(self) -> bool:
        """Writes kept data a last time; returns True if no data was lost."""
        if self.flush() and not self._lost:
            return True
        if self is not self._errors:
            lost = self._lost + len(self._rest)
            self._errors.write_line(f"error: {self._name}: {lost} bytes were lost, no space left")
        return False

    def _handle(self, error: OSError) -> None:
        if error.errno not in _FULL:
            self._discard_output(error)
        elif not self._full:
            self._full = True
            reason = f"{error.strerror}: output waits for space ({advice(error)})"
            self._errors.write_line(f"error: {self._name}: {reason}")

    def _discard_output(self, error: OSError) -> None:
        """Turns the stream into /dev/null.

        `run job | head` closes stdout; the job goes on until its end or Ctrl-C.
        """
        self._rest.clear()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._descriptor)
        os.close(null)
        if error.errno != errno.EPIPE and self is not self._errors:
            self._errors.write_line(
                f"error: {self._name}: {error.strerror}: later output is dropped"
            )


def _same_file(first: OutputStream, second: OutputStream) -> bool:
    return os.path.samestat(os.fstat(first.descriptor), os.fstat(second.descriptor))
