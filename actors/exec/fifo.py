"""FIFOs of exec sessions on the event loop: no thread, no copy, back-pressure both ways."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

_CHUNK_BYTES = 65536


class FifoReader:
    """Reader of a FIFO. Opens before the writer does: the writer never blocks in open()."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._wakeup: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """Returns the next bytes; empty bytes when every writer has closed the FIFO.

        A FIFO without a first writer would read as ended too. Therefore the method waits for the
        poll first: the kernel reports no event before the first writer comes.
        """
        while not self._stopping:
            await self._readable()
            try:
                return os.read(self._fd, _CHUNK_BYTES)
            except BlockingIOError:
                continue
        with contextlib.suppress(BlockingIOError):
            return os.read(self._fd, _CHUNK_BYTES)
        return b""

    def stop_when_empty(self) -> None:
        """Ends the stream after the bytes in the FIFO, even if a writer is left."""
        self._stopping = True
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    async def _readable(self) -> None:
        future = self._wakeup = self._loop.create_future()
        self._loop.add_reader(self._fd, _settle, future)
        try:
            await future
        finally:
            self._loop.remove_reader(self._fd)

    def close(self) -> None:
        """Closes the reader's end."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FifoWriter:
    """Writer of a FIFO. Opens the FIFO for both directions: open() then waits for no reader."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._loop = asyncio.get_running_loop()

    async def write(self, data: bytes) -> None:
        """Writes all of `data`, and waits while the FIFO is full."""
        view = memoryview(data)
        while view and self._fd >= 0:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._writable()

    async def _writable(self) -> None:
        future = self._loop.create_future()
        self._loop.add_writer(self._fd, _settle, future)
        try:
            await future
        finally:
            self._loop.remove_writer(self._fd)

    def close(self) -> None:
        """Closes the writer's end. The reader sees the end after the shim's close."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
