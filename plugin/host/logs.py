"""Reading a task's log FIFO as Nomad's logmon does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from actors.fifo import FifoReader

_MAX_LINE_BYTES = 64 * 1024


async def read_lines(fifo: Path, take: Callable[[str], None]) -> None:
    """Gives every line, without its end, until the last writer has closed.

    A line without an end is given at the end, or in pieces once it is longer than 64 KiB.
    """
    rest = b""
    async for data in read_bytes(fifo):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            take(line.decode(errors="replace"))
        if len(rest) > _MAX_LINE_BYTES:
            take(rest.decode(errors="replace"))
            rest = b""
    if rest:
        take(rest.decode(errors="replace"))


async def read_bytes(fifo: Path) -> AsyncGenerator[bytes, None]:
    """What comes through the FIFO, until the last writer has closed."""
    reader = FifoReader(fifo)
    try:
        while data := await reader.read():
            yield data
    finally:
        reader.close()
