"""Whether anybody lives who uses a state directory: plugins and runs, and workers of tasks.

Each of them holds a lock on a file there, which the kernel drops with its process.
"""

from __future__ import annotations

import fcntl
import os

from workers import protocol

_LIVE, _TASKS = "live", "tasks"
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_gone(directory: int) -> bool:
    """Returns whether nobody lives there any more; False also where that cannot be told.

    Args:
        directory: descriptor of the driver's state directory.
    """
    try:
        return not (_any(directory, _LIVE, "") or _any(directory, _TASKS, protocol.WORKER_LOCK))
    except OSError:
        return False


def _any(directory: int, place: str, name: str) -> bool:
    """Returns whether a file in the place, or that name in a directory of it, is locked."""
    try:
        at = os.open(place, _DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        return False
    try:
        for entry in os.listdir(at):  # noqa: PTH208 - pathlib takes no descriptor
            if _is_locked(at, f"{entry}/{name}" if name else entry):
                return True
    finally:
        os.close(at)
    return False


def _is_locked(at: int, path: str) -> bool:
    try:
        file = os.open(path, _FILE, dir_fd=at)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
