"""Reader of a task's log FIFO, as Nomad's logmon."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

from actors.exec.fifo import FifoReader

_MAX_LINE_BYTES = 64 * 1024


class LogReader:
    """Reader of one FIFO; opens the FIFO at once, before the first writer.

    Reading may begin later: the kernel keeps the written data. While the task runs, the close of
    the last writer is not the end of the log: a replacement worker opens the FIFO again.
    """

    def __init__(self, fifo: Path) -> None:
        self._fifo = fifo
        self._reader = FifoReader(fifo)
        self._silent = False
        self._ending = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yields data until `finish` was called and the last writer has closed."""
        while True:
            data = await self._reader.read()
            if data:
                self._silent = False
                yield data
            elif self._ending:
                return
            else:
                self._reopen()

    def _reopen(self) -> None:
        # The new end is opened first: without any reader the kernel would drop the data.
        before, self._reader = self._reader, FifoReader(self._fifo)
        before.close()
        self._silent = True

    def finish(self) -> None:
        """Marks the end of the task: the next close of the last writer ends the log."""
        self._ending = True
        if self._silent:
            self._reader.stop_when_empty()

    def close(self) -> None:
        """Closes the FIFO; the worker's keeper holds the data for the next reader."""
        self._reader.close()


class Lines:
    """Splits chunks of data into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Returns ended lines with their newlines, and each 64 KiB of a longer line."""
        *ended, self._rest = (self._rest + data).split(b"\n")
        lines = [line + b"\n" for line in ended]
        while len(self._rest) > _MAX_LINE_BYTES:
            cut = _between_characters(self._rest)
            lines.append(self._rest[:cut])
            self._rest = self._rest[cut:]
        return lines

    def end(self) -> list[bytes]:
        """Returns the last line if the line has no newline."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


def _between_characters(line: bytes) -> int:
    """Returns a position for a cut: not inside a UTF-8 character, which has up to 4 bytes."""
    for cut in range(_MAX_LINE_BYTES, _MAX_LINE_BYTES - 4, -1):
        if line[cut] & 0xC0 != 0x80:  # noqa: PLR2004 - 10xxxxxx continues a character
            return cut
    return _MAX_LINE_BYTES
