"""Which process is meant: never a pid alone, the kernel hands pids out again.

A pid, the time it started and the boot it started in name one process for ever. A signal goes
through a pidfd that was opened while those three still agreed.
"""

from __future__ import annotations

import os

from workers import procfs
from workers.protocol import Record

_START_TIME_FIELD = 19  # of /proc/PID/stat, counted after the command's closing parenthesis


_boot: list[str] = []


class Identity(Record):
    """One process of one boot.

    Attributes:
        pid: its number as this process's PID namespace sees it.
        start_ticks: clock ticks between boot and its start.
        boot_id: the kernel's random id of the boot.
    """

    pid: int
    start_ticks: int
    boot_id: str


def boot_id() -> str:
    """The running kernel's boot id, a UUID in text. Read once: no process sees two boots."""
    if not _boot:
        _boot.append(procfs.read("/proc/sys/kernel/random/boot_id").strip())
    return _boot[0]


def start_ticks(pid: int) -> int | None:
    """When `pid` started, in clock ticks since boot; None when there is no such process.

    The command in /proc/PID/stat may hold spaces and parentheses: fields count from its last ")".
    """
    try:
        stat = procfs.read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat[stat.rindex(")") + 2 :].split(" ", _START_TIME_FIELD + 1)[_START_TIME_FIELD])


def identify(pid: int) -> Identity | None:
    """The identity of the process that has `pid` now; None when there is none."""
    ticks = start_ticks(pid)
    return None if ticks is None else Identity(pid=pid, start_ticks=ticks, boot_id=boot_id())


def open_pidfd(process: Identity) -> int | None:
    """A pidfd of exactly this process, or None when it is gone.

    The start time is read again after the open: from then on the descriptor cannot mean another.

    Raises:
        OSError: there is no descriptor left.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    try:
        if identify(process.pid) == process:
            return descriptor
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
