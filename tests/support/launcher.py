"""Ending a launcher that a plugin under test has started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

from tests.support.waiting import wait_until
from workers import wire


def launcher_pid(state_dir: Path) -> int | None:
    """The pid of the launcher that listens in a state directory; None when there is none."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(state_dir / wire.LAUNCHER_SOCKET))
        except OSError:
            return None
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(credentials[:4], "little")


def end_launcher(state_dir: Path) -> None:
    """Ends it, if there is one, and waits until it has gone."""
    pid = launcher_pid(state_dir)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 10, f"launcher {pid} does not end")
