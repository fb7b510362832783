"""The kernel's process table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")


def processes() -> Iterator[Path]:
    """Yields the directory of each process below /proc. A process may end at any moment."""
    return (entry for entry in _PROC.iterdir() if entry.name.isdecimal())
