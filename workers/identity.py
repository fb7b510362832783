"""Identity of a process. A pid alone is not enough, because the kernel reuses pids.

Pid, start time and boot id together name a process for ever. A signal goes through a pidfd that was
opened while all three still agreed.
"""

from __future__ import annotations

import fcntl
import os
import sys

from workers import procfs
from workers.protocol import Record

_PIDFD_GET_INFO = 0xC040FF0B  # ioctl on a struct pidfd_info of 64 bytes: mask, ids, wait status
_PIDFD_INFO_EXIT = 8
# Fields of /proc/PID/stat, counted after the command's closing parenthesis.
_START_TIME_FIELD = 19
_EXIT_CODE_FIELD = 49


_boot: list[str] = []


class Identity(Record):
    """A process of a boot.

    Attributes:
        pid: number of the process in the PID namespace of the caller.
        start_ticks: clock ticks between the boot and the start of the process.
        boot_id: the kernel's random id of the boot.
    """

    pid: int
    start_ticks: int
    boot_id: str


def boot_id() -> str:
    """Returns the boot id of the running kernel, a UUID in text, and reads the id only once."""
    if not _boot:
        _boot.append(procfs.read("/proc/sys/kernel/random/boot_id").strip())
    return _boot[0]


def start_ticks(pid: int) -> int | None:
    """Returns the start time of `pid` in clock ticks since boot; None without such a process.

    The command in /proc/PID/stat may hold spaces and parentheses: fields count from the last ")".
    """
    try:
        stat = procfs.read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat[stat.rindex(")") + 2 :].split(" ", _START_TIME_FIELD + 1)[_START_TIME_FIELD])


def identify(pid: int) -> Identity | None:
    """Returns the identity of the process that has `pid` now; None without such a process."""
    ticks = start_ticks(pid)
    return None if ticks is None else Identity(pid=pid, start_ticks=ticks, boot_id=boot_id())


def open_pidfd(process: Identity) -> int | None:
    """Opens a pidfd of exactly this process; None if the process is gone.

    The start time is read again after the open. From then on the descriptor can mean no other
    process.

    Raises:
        OSError: no descriptor is left.
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


def waiting_exit_code(process: Identity) -> int | None:
    """Returns the exit code of a process whose parent has not read the code, as a shim reports it.

    None while the process runs, and after its parent has read the code.
    """
    try:
        stat = procfs.read(f"/proc/{process.pid}/stat")
        # The kernel shows a 0 to readers that may not trace the process, and refuses this link.
        os.readlink(f"/proc/{process.pid}/ns/user")  # noqa: PTH115 - workers do without pathlib
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] != "Z" or int(fields[_START_TIME_FIELD]) != process.start_ticks:
        return None
    return _as_reported(int(fields[_EXIT_CODE_FIELD]))


def exit_code(pidfd: int) -> int | None:
    """Returns the exit code of a process whose parent has read the code, as a shim reports it.

    None while the process runs or waits for its parent, and on a kernel before Linux 6.15.
    """
    answer = bytearray(_PIDFD_INFO_EXIT.to_bytes(8, sys.byteorder) + bytes(56))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, answer)
    except OSError:
        return None
    if not int.from_bytes(answer[:8], sys.byteorder) & _PIDFD_INFO_EXIT:
        return None
    return _as_reported(int.from_bytes(answer[60:], sys.byteorder))


def _as_reported(status: int) -> int:
    """Returns the exit code of a wait status: 128 plus the number of a signal that ended it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
