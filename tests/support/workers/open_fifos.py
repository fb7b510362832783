"""The processes that have an end of a FIFO open."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def holders(fifo: Path, mode: int, pids: Iterable[int] | None = None) -> set[int]:
    """Lists the processes that have the FIFO open in a mode of `os.O_ACCMODE`."""
    return {pid for pid in (_all() if pids is None else pids) if _has(pid, fifo, mode)}


def _all() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _has(pid: int, fifo: Path, mode: int) -> bool:
    with contextlib.suppress(OSError):  # it has ended
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                if entry.readlink() == fifo and _flags(pid, entry.name) & os.O_ACCMODE == mode:
                    return True
    return False


def _flags(pid: int, descriptor: str) -> int:
    """Returns the flags of a descriptor: they alone mark O_PATH, which opens no end."""
    words = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text().split()
    flags = int(words[words.index("flags:") + 1], 8)
    return -1 if flags & os.O_PATH else flags
