"""The plugin's own ends of a task's log FIFOs, for times when no worker and no shim has them open.

Nomad's logmon ends for good when a FIFO has no writer any more, and Nomad starts a new logmon only
before a StartTask. So all writers of one StartTask must overlap: the shim of an interrupted earlier
start, and the shim of the present start. A start can also fail before a writer has opened the FIFO.
Then logmon waits for a writer, and Nomad waits for logmon, so the plugin opens and closes the FIFO.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING

from proto.errors import DriverError
from workers.logs.keeper import open_log

if TYPE_CHECKING:
    from actors.model.nomad import TaskConfig

_NO_LOG = {"", os.devnull}
# Nomad's logmon reports that it is ready some moments before it opens the FIFOs.
_LATE_READER_S = 0.1


class LogEnds:
    """Both ends of both log FIFOs, open from `hold` to `close`; no reader is needed.

    Threads can call `hold` and `close` at the same time. `hold` opens nothing after `close`.
    """

    def __init__(self, task: TaskConfig) -> None:
        self._task = task
        self._lock = threading.Lock()
        self._descriptors: list[int] = []
        self._closed = False

    def hold(self) -> None:
        """Opens the FIFOs; skips a FIFO that cannot be opened. Blocks for a moment.

        Does nothing the second time.
        """
        with self._lock:
            if not self._descriptors and not self._closed:
                self._descriptors = _opened(self._task, os.O_RDWR | os.O_NONBLOCK)

    def close(self) -> None:
        """Closes the FIFOs: the shim has opened them, or the start has failed."""
        with self._lock:
            self._closed = True
            _close(self._descriptors)
            self._descriptors = []


async def end_readers(task: TaskConfig) -> None:
    """Shows the readers of the task's logs a writer and an end, after a failed start.

    A reader that has not opened the FIFOs yet gets a moment. Without FIFOs Nomad has no reader.
    """
    if not any(map(os.path.lexists, _paths(task))):
        return

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
        with contextlib.suppress(DriverError):  # no FIFO exists, or no process reads
            descriptors.append(open_log(path, flags))
    return descriptors


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
