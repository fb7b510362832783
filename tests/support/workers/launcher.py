"""The launcher and the workers of a plugin under test: pids, and the launcher's end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

from tests.support.waiting import wait_until
from tests.support.workers.peers import has_ended
from workers import protocol


def launcher_pid(state_dir: Path) -> int | None:
    """Returns the pid of the launcher that listens in a state directory, or None."""
    return _peer(state_dir, protocol.LAUNCHER_SOCKET)


def worker_pids(state_dir: Path) -> list[int]:
    """Lists the pids of the workers whose control sockets lie below a state directory."""
    found = []
    tasks = state_dir / "tasks"
    for directory in tasks.iterdir() if tasks.exists() else ():
        pid = worker_pid(directory)
        if pid is not None:
            found.append(pid)
    return found


def worker_pid(directory: Path) -> int | None:
    """Returns the pid behind a task's control socket, or None without a listener."""
    return _peer(directory, protocol.CONTROL_SOCKET)


def _peer(directory: Path, name: str) -> int | None:
    # sun_path holds 108 bytes; a descriptor of the directory makes the name short.
    try:
        descriptor = os.open(directory, os.O_PATH)
    except OSError:
        return None
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"/proc/self/fd/{descriptor}/{name}")
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int.from_bytes(credentials[:4], "little")
    except OSError:
        return None
    finally:
        os.close(descriptor)


def end_launcher(state_dir: Path) -> None:
    """Ends the launcher of a state directory and waits for the end."""
    pid = launcher_pid(state_dir)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: has_ended(pid), 10, f"launcher {pid} does not end")
