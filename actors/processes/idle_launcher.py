"""A launcher that nobody needs any more: one that a plugin started ends by itself after a while."""

from __future__ import annotations

import os
from pathlib import Path

from workers import identity, liveness, private_directory, protocol

MINUTES = 5
_TEXT_BYTES = 4096


def pid(state_dir: Path) -> int | None:
    """The launcher that serves where nobody lives; None without one, and where systemd runs it."""
    try:
        directory = private_directory.opened(str(state_dir))
    except FileNotFoundError:
        return None
    try:
        launcher = _holder(directory)
        return launcher if launcher is not None and liveness.is_gone(directory) else None
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
    lives = identity.start_ticks(number) == ticks
    return number if lives and b"--notify" not in arguments else None
