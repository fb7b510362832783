"""Check for live users of a state directory: plugins, runs, and workers of tasks.

Each of these processes holds a lock on a file in the directory, and the kernel drops the lock when
the process ends.
"""

from __future__ import annotations

import fcntl
import os

from workers import protocol

_LIVE, _TASKS = "live", "tasks"
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_unused(directory: int) -> bool:
    """Returns whether no user of the directory is alive; False also if the check fails.

    Args:
        directory: descriptor of the driver's state directory.
    """
    try:
        return not (_any(directory, _LIVE, "") or _any(directory, _TASKS, protocol.WORKER_LOCK))
    except OSError:
        return False


def _any(parent: int, folder: str, name: str) -> bool:
    """Returns whether any file in the folder, or `name` in any directory there, is locked."""
    try:
        directory = os.open(folder, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return False
    try:
        for entry in os.listdir(directory):  # noqa: PTH208 - pathlib takes no descriptor
            if _is_locked(directory, f"{entry}/{name}" if name else entry):
                return True
    finally:
        os.close(directory)
    return False


def _is_locked(directory: int, path: str) -> bool:
    try:
        file = os.open(path, _FILE, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
