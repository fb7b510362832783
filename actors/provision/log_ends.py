"""The plugin's own ends of a task's log FIFOs, held where no worker and no shim can hold one.

Nomad's logmon ends for good when a FIFO that it reads has no writer any more, and Nomad starts a
new one only before a StartTask. So all writers of one StartTask must overlap: the shim of an
earlier start that was cut short, and the shim of this start. And a start that fails before there
was any writer has to show logmon one, because logmon waits for a writer and Nomad for logmon.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING

from proto.errors import DriverError
from workers.logs.keeper import open_fifo

if TYPE_CHECKING:
    from actors.model.nomad import TaskConfig

_NO_LOG = {"", os.devnull}
# Nomad's logmon opens a FIFO some moments after it has said that it is ready.
_LATE_READER_S = 0.1


class LogEnds:
    """Both ends of both FIFOs, so that no reader has to be there, from `hold` to `close`.

    A thread may hold while another closes: what is closed is never held again.
    """

    def __init__(self, task: TaskConfig) -> None:
        self._task = task
        self._lock = threading.Lock()
        self._held: list[int] = []
        self._over = False

    def hold(self) -> None:
        """Opens the FIFOs that can be opened; nothing the second time. Blocks for a moment."""
        with self._lock:
            if not self._held and not self._over:
                self._held = _opened(self._task, os.O_RDWR | os.O_NONBLOCK)

    def close(self) -> None:
        """Closes what is held: the shim has opened the FIFOs, or nobody will."""
        with self._lock:
            self._over = True
            _close(self._held)
            self._held = []


async def end_readers(task: TaskConfig) -> None:
    """Has the readers of the task's logs see an end: the start has failed and nobody writes.

    A reader that is not there yet gets a moment to come.
    """

    def show_writers() -> bool:
        writers = _opened(task, os.O_WRONLY | os.O_NONBLOCK)
        _close(writers)
        return len(writers) == len(_paths(task))

    if await asyncio.to_thread(show_writers):
        return
    ends = LogEnds(task)
    await asyncio.to_thread(ends.hold)
    await asyncio.sleep(_LATE_READER_S)
    ends.close()


def _paths(task: TaskConfig) -> list[str]:
    return [
        path for path in dict.fromkeys((task.stdout_path, task.stderr_path)) if path not in _NO_LOG
    ]


def _opened(task: TaskConfig, flags: int) -> list[int]:
    descriptors: list[int] = []
    for path in _paths(task):
        with contextlib.suppress(DriverError):  # no FIFO is there, or nobody reads it
            descriptors.append(open_fifo(path, flags))
    return descriptors


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
