"""Reading a task's log FIFO as Nomad's logmon does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from pathlib import Path

from actors.fifo import FifoReader

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
        """What comes through, until `finish` was called and the last writer has closed."""
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

    def lines(self) -> AsyncGenerator[bytes, None]:
        """Every line, see `split_lines`."""
        return split_lines(self.chunks())

    def finish(self) -> None:
        """The task has ended: the next end of the writers is the log's."""
        self._ending = True
        if self._silent:
            self._reader.stop_when_empty()

    def close(self) -> None:
        """Closes our end; the worker's keeper holds the FIFO's contents for the next reader."""
        self._reader.close()


async def split_lines(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Every line without its end; one longer than 64 KiB in pieces, and the last as it is."""
    rest = b""
    async for data in chunks:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line
        while len(rest) > _MAX_LINE_BYTES:
            yield rest[:_MAX_LINE_BYTES]
            rest = rest[_MAX_LINE_BYTES:]
    if rest:
        yield rest


async def read_bytes(fifo: Path) -> AsyncGenerator[bytes, None]:
    """What comes through the FIFO, until the last writer has closed."""
    reader = FifoReader(fifo)
    try:
        while data := await reader.read():
            yield data
    finally:
        reader.close()
