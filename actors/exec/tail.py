"""Tails of the output of commands that Nomad runs for script checks.

Nomad uses the output of ExecTask as the text of a check, and Nomad's own drivers keep 4 KiB. A
command may print without end, and many commands may run together: all commands share a budget.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

MOST_BYTES = 64 * 1024
LEAST_BYTES = 4 * 1024
"""Guaranteed to each stream of a command: the size that Nomad's drivers keep."""
ALL_BYTES = 4 * 1024 * 1024


class Tail:
    """Last bytes of a stream.

    Attributes:
        dropped: number of bytes that were not kept.
    """

    def __init__(self, budget: TailBudget) -> None:
        self._budget = budget
        self._kept = bytearray()
        self.dropped = 0

    def add(self, data: bytes) -> None:
        """Adds the next bytes of the stream, and drops the oldest bytes above the limit."""
        limit = self._budget.share()
        self._kept += data[-limit:]
        self.dropped += max(0, len(data) - limit)
        if len(self._kept) > 2 * limit:  # rarely, because a cut moves all bytes
            self._cut(limit)

    def take(self) -> bytes:
        """Returns the kept bytes."""
        self._cut(self._budget.share())
        return bytes(self._kept)

    def _cut(self, limit: int) -> None:
        over = max(0, len(self._kept) - limit)
        self.dropped += over
        del self._kept[:over]


class TailBudget:
    """Bytes that the tails of all streams share. Belongs to the event loop."""

    def __init__(self) -> None:
        self._streams = 0

    def share(self) -> int:
        """Returns the number of bytes that each stream may keep."""
        return max(LEAST_BYTES, min(MOST_BYTES, ALL_BYTES // max(1, 2 * self._streams)))

    @contextmanager
    def streams(self) -> Generator[tuple[Tail, Tail], None, None]:
        """Counts a command's streams inside the block. Yields the tails of stdout and stderr."""
        self._streams += 2
        try:
            yield Tail(self), Tail(self)
        finally:
            self._streams -= 2
