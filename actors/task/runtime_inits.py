"""Kills processes of a runtime that wait inside a task for ever.

runc reads /etc/passwd of a task before runc runs a command in the task, and a task may have a FIFO
at the path. The shim reports no exit of the task during the start of a command. So a task that
shares the processes of another task could not be stopped: the end of the task's own process leaves
the waiting process alive.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_V1_CONTROLLERS = ("pids", "memory", "devices")
# Names of runc's stages before the program, and crun's.
_NAMES = ("runc:[", "crun")


def kill(cgroup: str, root: Path = _CGROUPS) -> None:
    """Kills the runtime's processes in a container's cgroup. Blocks for a moment.

    Args:
        cgroup: path of the cgroup below the root of the hierarchy.
        root: the mount of the hierarchies.
    """
    for place in (root, *(root / name for name in _V1_CONTROLLERS)):
        file = Path(f"{place}{cgroup}") / "cgroup.procs"
        with contextlib.suppress(OSError, ValueError):
            for pid in map(int, file.read_text().split()):
                _kill(pid, file)


def _kill(pid: int, file: Path) -> None:
    with contextlib.suppress(OSError):
        process = os.pidfd_open(pid)
        try:
            name = Path(f"/proc/{pid}/comm").read_text()
            # The list, read again, shows that the number is still of a process in the cgroup.
            if name.startswith(_NAMES) and str(pid) in file.read_text().split():
                signal.pidfd_send_signal(process, signal.SIGKILL)
        finally:
            os.close(process)
