"""Reading a task's log FIFO as Nomad's logmon does."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

from actors.exec.fifo import FifoReader

_MAX_LINE_BYTES = 64 * 1024


class LogReader:
    """One FIFO, opened at once: whoever writes first finds a reader.

    Reading may begin later; the kernel keeps what the pipe holds. An end of the writers is not
    the end of the log while the task runs: who took over from a lost one opens the FIFO again.
    """

    def __init__(self, fifo: Path) -> None:
        self._fifo = fifo
        self._reader = FifoReader(fifo)
        self._silent = False
        self._ending = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Returns what comes through, until `finish` was called and the last writer has closed."""
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
        # The new end first: there is no moment without a reader, so nothing is lost.
        before, self._reader = self._reader, FifoReader(self._fifo)
        before.close()
        self._silent = True

    def finish(self) -> None:
        """The task has ended: the next end of the writers is the log's."""
        self._ending = True
        if self._silent:
            self._reader.stop_when_empty()

    def close(self) -> None:
        """Closes our end; the worker's keeper holds the FIFO's contents for the next reader."""
        self._reader.close()


class Lines:
    """Whole lines of what comes in chunks."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Returns the lines that have ended, with their ends, and each 64 KiB of a longer one."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = [line + b"\n" for line in lines]
        while len(self._rest) > _MAX_LINE_BYTES:
            cut = _between_characters(self._rest)
            found.append(self._rest[:cut])
            self._rest = self._rest[cut:]
        return found

    def end(self) -> list[bytes]:
        """Returns the last line, where it has no end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


def _between_characters(line: bytes) -> int:
    """Returns where a line may be cut: not inside a character of UTF-8, which has up to 4 bytes."""
    for cut in range(_MAX_LINE_BYTES, _MAX_LINE_BYTES - 4, -1):
        if line[cut] & 0xC0 != 0x80:  # noqa: PLR2004 - 10xxxxxx goes on with a character
            return cut
    return _MAX_LINE_BYTES
