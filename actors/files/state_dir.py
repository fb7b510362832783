"""Directories of the driver's state: one for each task, one for the pins of its mounts."""

from __future__ import annotations

import os
from pathlib import Path

from workers import private_directory


def make_private(directory: Path) -> None:
    """A directory for root alone, with those above it.

    Raises:
        OSError: it cannot be made.
        DriverError: code DENIED; another user can change it.
    """
    os.close(private_directory.opened(str(directory), make=True))


def task_directory(state_dir: Path, container: str) -> Path:
    """Returns where the task's control socket, exit record and lock lie."""
    return state_dir / "tasks" / container


def pins_directory(state_dir: Path, container: str) -> Path:
    """Returns where the sources of the task's mounts are held while it is made.

    Never below a directory that is removed as a tree, for these are not our files.
    """
    return state_dir / "mounts" / container
