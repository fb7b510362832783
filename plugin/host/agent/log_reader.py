"""Readers of a task's log: of the FIFO, as Nomad's logmon, and of log files, as `alloc logs -f`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path

from actors.exec.fifo import FifoReader

_MAX_LINE_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024
_LOOK_AGAIN_S = 0.05


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


class LogFollower:
    """Reader of the log files of a stream, from the first file to the last.

    Args:
        path: path of the files without number.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = -1
        self._file = -1
        self._ending = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yields data until `finish` was called and the last file is read."""
        while True:
            ending = self._ending
            if data := self._read():
                yield data
                continue
            later = self._next_number()
            if data := self._read():  # perhaps written before the next file was created
                yield data
            elif later is not None:
                self._open(later)
            elif ending:
                return
            else:
                await asyncio.sleep(_LOOK_AGAIN_S)

    def finish(self) -> None:
        """Marks the end of the task: the files are complete."""
        self._ending = True

    def close(self) -> None:
        """Closes the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read(self) -> bytes:
        return os.read(self._file, _CHUNK_BYTES) if self._file >= 0 else b""

    def _next_number(self) -> int | None:
        prefix = f"{self._path.name}."
        numbers = [
            int(entry.name.removeprefix(prefix))
            for entry in self._path.parent.glob(f"{prefix}*")
            if entry.name.removeprefix(prefix).isdecimal()
        ]
        return min((number for number in numbers if number > self._number), default=None)

    def _open(self, number: int) -> None:
        self.close()
        self._number = number
        with contextlib.suppress(FileNotFoundError):  # removed as the oldest file
            path = self._path.with_name(f"{self._path.name}.{number}")
            self._file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


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
