"""What a command leaves in its task when its caller goes: the processes that it has started.

A runtime kills the first process of a command alone. What that process has started is below it in
the process table, or of the session that it leads under runc; a daemon, which leaves both, stays.
Processes of gVisor do not show on the host.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

_PROC = Path("/proc")
_PARENT, _SESSION = 1, 3
"""Which words after the name in /proc/PID/stat."""


def hold(leader: int, task: int) -> list[int]:
    """Descriptors of what a command has started in the task's cgroup. Blocks a little.

    To be asked for while the command's first process lives: later its children are another's. The
    cgroup tells a number apart that has passed to a process of somebody else.
    """
    own = _cgroup(task)
    if not own or not leader:
        return []
    found = []
    for pid in _started_by(leader):
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            if _cgroup(pid) == own:
                found.append(pidfd)
            else:
                os.close(pidfd)
    return found


def kill(pidfds: list[int]) -> None:
    """SIGKILL to each that is still there; closes the descriptors."""
    for pidfd in pidfds:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


def _started_by(leader: int) -> set[int]:
    children: dict[int, list[int]] = {}
    found = set()
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (words := _stat(entry)):
            children.setdefault(int(words[_PARENT]), []).append(int(entry.name))
            if int(words[_SESSION]) == leader:
                found.add(int(entry.name))
    parents = [leader, *found]
    while parents:
        below = set(children.get(parents.pop(), ())) - found - {leader}
        found |= below
        parents += below
    return found - {leader}


def _stat(process: Path) -> list[str]:
    try:
        text = (process / "stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(") ")[2].split()


def _cgroup(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "cgroup").read_text()
    except OSError:
        return ""
