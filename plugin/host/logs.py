"""Reading a task's log FIFO as Nomad's logmon does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from pathlib import Path

from actors.fifo import FifoReader

_MAX_LINE_BYTES = 64 * 1024


class LogReader:
    """One FIFO, opened at once: whoever writes first finds a reader.

    Reading may begin later; the kernel keeps what the pipe holds.
    """

    def __init__(self, fifo: Path) -> None:
        self._reader = FifoReader(fifo)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """What comes through, until the last writer has closed."""
        while data := await self._reader.read():
            yield data

    def lines(self) -> AsyncGenerator[bytes, None]:
        """Every line, see `split_lines`."""
        return split_lines(self.chunks())

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
    reader = LogReader(fifo)
    try:
        async for data in reader.chunks():
            yield data
    finally:
        reader.close()
