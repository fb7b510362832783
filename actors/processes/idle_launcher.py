"""Search for an idle launcher. A launcher that a plugin started ends after some idle minutes."""

from __future__ import annotations

import os
from pathlib import Path

from workers import identity, liveness, private_directory, protocol

MINUTES = 5
_TEXT_BYTES = 4096


def pid(state_dir: Path) -> int | None:
    """Returns the process id of an idle launcher.

    A launcher is idle if no plugin, run or task of its state directory lives.

    Args:
        state_dir: the state directory.

    Returns:
        None without an idle launcher, and for a launcher of systemd.
    """
    try:
        directory = private_directory.opened(str(state_dir))
    except FileNotFoundError:
        return None
    try:
        launcher = _holder(directory)
        return launcher if launcher is not None and liveness.is_unused(directory) else None
    finally:
        os.close(directory)


def _holder(directory: int) -> int | None:
    try:
        file = os.open(protocol.LAUNCHER_LOCK, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            words = os.read(file, _TEXT_BYTES).split()
        finally:
            os.close(file)
        number, ticks, *_ = map(int, words[:2])
        arguments = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    same = identity.start_ticks(number) == ticks
    return number if same and b"--notify" not in arguments else None
