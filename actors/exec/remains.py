"""Processes that a command has started and leaves in the task when the caller goes away.

A runtime kills only the first process of a command. The children of that process are below the
process in the process table, or belong to the session that the process leads under runc. A daemon
leaves both, and stays. Processes of gVisor are invisible on the host.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from actors.processes.process_table import processes

_PARENT, _SESSION = 1, 3
"""Positions after the name in /proc/PID/stat."""
_LOOKS = 20
"""Looks at the process table; other processes of the task may let a stopped process go on."""


def open_started(leader: int, task: int) -> list[int]:
    """Stops and opens a command's first process and all processes that the command has started.

    Blocks briefly. Call the function while the command's first process lives: later the children
    have another parent. A process that runs could start another process after the look at the
    process table; so each process is stopped, until a look finds no further process.

    The kernel may give the number of an ended process to a new process of another program, and a
    runtime with a kernel of its own reports numbers of that kernel. The comparisons of cgroups and
    of the first process's mount namespace detect such a number.

    Args:
        leader: process id of the command's first process; 0 for none.
        task: process id of the task's first process.

    Returns:
        Descriptors of stopped processes (pidfds), for `kill`.
    """
    cgroup = _cgroup(task)
    if not cgroup or leader in {0, task} or _mounts(leader) not in {"", _mounts(task)}:
        return []
    pidfds: list[int] = []
    seen: set[int] = set()
    for _ in range(_LOOKS):
        new = ({leader} | _started_by(leader)) - seen
        if not new:
            break
        seen |= new
        for pid in new:
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(pid)
                if _cgroup(pid) == cgroup:
                    pidfds.append(pidfd)
                    signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
                else:
                    os.close(pidfd)
    return pidfds


def kill(pidfds: list[int]) -> None:
    """Sends SIGKILL to each process that still exists, and closes the descriptors."""
    for pidfd in pidfds:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


def _started_by(leader: int) -> set[int]:
    children: dict[int, list[int]] = {}
    started = set()
    for entry in processes():
        if words := _stat(entry):
            children.setdefault(int(words[_PARENT]), []).append(int(entry.name))
            if int(words[_SESSION]) == leader:
                started.add(int(entry.name))
    parents = [leader, *started]
    while parents:
        below = set(children.get(parents.pop(), ())) - started - {leader}
        started |= below
        parents += below
    return started - {leader}


def _stat(process: Path) -> list[str]:
    try:
        text = (process / "stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(") ")[2].split()


def _cgroup(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""


def _mounts(pid: int) -> str:
    """Returns the mount namespace of a process; empty if the process has ended."""
    try:
        return str(Path(f"/proc/{pid}/ns/mnt").readlink())
    except OSError:
        return ""
