"""The processes of a health check on the host: the OOM score, and the end of a hanging check.

A runtime kills only the first process of an exec. The children are below the first process in the
process table, or belong to the session that the first process leads. The kernel may give the number
of an ended process to a process of another program; the comparison of cgroups detects such a
number. Processes of gVisor are invisible on the host, and end with the exec.
"""

from __future__ import annotations

import os

from workers import c_modules, procfs

_PARENT, _SESSION = 1, 3
"""Positions after the name in /proc/PID/stat."""


def set_oom_score(pid: int, container_pid: int) -> None:
    """Gives a process of the task the OOM score of the task's first process.

    Without a score a process inherits containerd's, and the kernel would kill the agent first.
    """
    try:
        wanted = procfs.read(f"/proc/{container_pid}/oom_score_adj")
        if _cgroup(pid) == _cgroup(container_pid):
            file = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(file, wanted.encode())
            finally:
                os.close(file)
    except OSError:  # the check or the task has ended
        return


def kill(leader: int, container_pid: int) -> None:
    """Kills the processes that a check has started, also after the end of its first process.

    Args:
        leader: pid of the check's first process; 0 for none.
        container_pid: pid of the task's first process.
    """
    cgroup = _cgroup(container_pid)
    if not leader or not cgroup:
        return
    for pid in (leader, *_started_by(leader)):  # a shell that lives on would start more
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if _cgroup(pid) == cgroup:
                c_modules.pidfd_send_signal(pidfd, c_modules.SIGKILL)
        except OSError:  # the process has ended
            pass
        finally:
            os.close(pidfd)


def _started_by(leader: int) -> set[int]:
    parents: dict[int, int] = {}
    started = {leader}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib is not in the import set
        if name.isdigit():
            words = _stat(int(name))
            if words:
                parents[int(name)] = int(words[_PARENT])
                if int(words[_SESSION]) == leader:
                    started.add(int(name))
    grown = True
    while grown:
        below = {pid for pid, parent in parents.items() if parent in started}
        grown = not below <= started
        started |= below
    return started - {leader}


def _stat(pid: int) -> list[str]:
    try:
        return procfs.read(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    except OSError:
        return []


def _cgroup(pid: int) -> str:
    try:
        return procfs.read(f"/proc/{pid}/cgroup")
    except OSError:
        return ""
