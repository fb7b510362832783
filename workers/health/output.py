"""Output of a health check: a FIFO that the worker reads during the check.

The worker keeps the begin of the output, as Docker does, and drops the rest. So a check never waits
for a reader. Both ends are open in the worker, so the FIFO has no end of file and no hang-up.
"""

from __future__ import annotations

import os

from workers.health.records import HEALTH_FIFO
from workers.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workers.loop import Loop

KEPT_BYTES = 4096
_CHUNK_BYTES = 16384
_MOST_OLD_READS = 64
"""A FIFO has at most 1 MiB. A process that a check has left may write faster than the worker reads,
so an empty FIFO may never come."""


class Output:
    """The FIFO of one task's checks.

    Args:
        loop: the worker's loop.
        directory: descriptor of the task's state directory.

    Raises:
        OSError: the FIFO cannot be created or opened.
    """

    def __init__(self, loop: Loop, directory: int) -> None:
        self._loop = loop
        self._kept = b""
        self.is_new = not os.access(HEALTH_FIFO, os.F_OK, dir_fd=directory, follow_symlinks=False)
        if self.is_new:
            os.mkfifo(HEALTH_FIFO, 0o600, dir_fd=directory)
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fifo = os.open(HEALTH_FIFO, flags, dir_fd=directory)

    def begin(self) -> None:
        """Drops old output, and reads from now on."""
        for _ in range(_MOST_OLD_READS):
            if not self._read():
                break
        self._kept = b""
        self._loop.watch(self._fifo, READ, self._on_ready)

    def end(self) -> bytes:
        """Stops reading; returns the begin of the output since `begin`."""
        while len(self._kept) < KEPT_BYTES and self._read():
            pass
        self._loop.forget(self._fifo)
        return self._kept

    def close(self) -> None:
        """Closes the FIFO."""
        if self._fifo >= 0:
            self._loop.forget(self._fifo)
            os.close(self._fifo)
            self._fifo = -1

    def _on_ready(self, _: int) -> None:
        self._read()

    def _read(self) -> int:
        try:
            data = os.read(self._fifo, _CHUNK_BYTES)
        except OSError:  # empty
            return 0
        self._kept += data[: KEPT_BYTES - len(self._kept)]
        return len(data)
