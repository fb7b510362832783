"""Paths below the driver's state directory: for each task one for state and one for pins."""

from __future__ import annotations

import os
from pathlib import Path

from workers import private_directory


def make_private(directory: Path) -> None:
    """Creates a directory for root alone, and the directories above.

    Raises:
        OSError: the directory cannot be created.
        DriverError: code DENIED; another user can change a directory on the way.
    """
    os.close(private_directory.opened(str(directory), make=True))


def task_directory(state_dir: Path, container: str) -> Path:
    """Returns the directory of a task's control socket, exit record and lock."""
    return state_dir / "tasks" / container


def pins_directory(state_dir: Path, container: str) -> Path:
    """Returns the directory where a task's mount sources are pinned during the start.

    Lies below no directory that the driver removes as a tree: the pins show files of others.
    """
    return state_dir / "mounts" / container
