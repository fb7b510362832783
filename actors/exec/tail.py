"""The ends of what commands print that Nomad runs for script checks.

Nomad takes what ExecTask returns for the text of a check, and its own drivers keep 4 KiB of it. A
command may print without end, and many may run at once: all of them share one room.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

MOST_BYTES = 64 * 1024
LEAST_BYTES = 4 * 1024
"""As Nomad's drivers keep; for each stream of a command, however many run at once."""
ALL_BYTES = 4 * 1024 * 1024


class Tail:
    """The last bytes of a stream."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._kept = bytearray()
        self.dropped = 0

    def add(self, data: bytes) -> None:
        """Takes what comes next; the oldest makes room for it."""
        limit = self._room.share()
        self._kept += data[-limit:]
        self.dropped += max(0, len(data) - limit)
        if len(self._kept) > 2 * limit:  # not at each add: it moves all bytes
            self._cut(limit)

    def take(self) -> bytes:
        """The end of the stream."""
        self._cut(self._room.share())
        return bytes(self._kept)

    def _cut(self, limit: int) -> None:
        over = max(0, len(self._kept) - limit)
        self.dropped += over
        del self._kept[:over]


class Room:
    """What all streams share. Belongs to the event loop."""

    def __init__(self) -> None:
        self._streams = 0

    def share(self) -> int:
        """How many bytes each stream may keep."""
        return max(LEAST_BYTES, min(MOST_BYTES, ALL_BYTES // max(1, 2 * self._streams)))

    @contextmanager
    def streams(self) -> Generator[tuple[Tail, Tail], None, None]:
        """Tails of stdout and stderr of one command."""
        self._streams += 2
        try:
            yield Tail(self), Tail(self)
        finally:
            self._streams -= 2
