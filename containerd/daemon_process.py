"""Limits of the process containerd; tasks without a limit in their spec inherit them.

A shim is a child of containerd, and a runtime is a child of the shim. Both hand the limit on, and
both can raise the limit only if containerd itself may raise it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import field

from containerd.security import capabilities
from proto.values import dataclass

_CONNECT_S = 1.0
_PEER = struct.Struct("=iII")
# Limits of systemd, and so of containerd with its newer units. Programs that need more descriptors
# raise their own soft limit. A high soft limit harms programs that use select(2) or that close all
# possible descriptors.
OPEN_FILES = (1024, 524288)
# The uid_map of the machine's first user namespace.
_EVERYBODY = ["0", "0", "4294967295"]
# Names in /proc/PID/limits.
_KINDS = {
    "as": "address space",
    "core": "core file size",
    "cpu": "cpu time",
    "data": "data size",
    "fsize": "file size",
    "locks": "file locks",
    "memlock": "locked memory",
    "msgqueue": "msgqueue size",
    "nice": "nice priority",
    "nofile": "open files",
    "nproc": "processes",
    "rss": "resident set",
    "rtprio": "realtime priority",
    "rttime": "realtime timeout",
    "sigpending": "pending signals",
    "stack": "stack size",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonProcess:
    """Limits of containerd's process.

    open_files is (soft, hard). raises_limits is True with CAP_SYS_RESOURCE outside of a user
    namespace: such a process may give a task more than its own hard limit, and a lower OOM score.
    hard_limits has the hard limits by the name of a ulimit.
    """

    open_files: tuple[int, int]
    raises_limits: bool
    hard_limits: Mapping[str, int] = field(default_factory=dict)
    oom_score_adj: int = 0

    def task_open_files(self) -> tuple[int, int]:
        """Returns the soft and the hard limit of tasks without a limit of their own."""
        soft, hard = OPEN_FILES
        most = hard if self.raises_limits else min(hard, self.open_files[1])
        return min(soft, most), most


# For a containerd whose process cannot be read: the limits of containerd's unit.
USUAL = DaemonProcess(open_files=OPEN_FILES, raises_limits=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A process that was behind a socket: pid and start time name the process of this boot."""

    pid: int
    start: str
    limits: DaemonProcess


# By the socket's address. Each start asks, and an inspection costs containerd a connection.
_seen: dict[str, _Seen] = {}


def inspect(address: str) -> DaemonProcess:
    """Returns the limits of the process behind containerd's socket; USUAL if that is impossible.

    The limits are read once for each process. Blocks for a moment.
    """
    try:
        seen = _seen.get(address)
        if seen is None or _start(seen.pid) != seen.start:
            pid = peer(address)
            seen = _seen[address] = _Seen(pid=pid, start=_start(pid), limits=_read(pid))
    except (OSError, ValueError, StopIteration):
        return USUAL
    return seen.limits


def _start(pid: int) -> str:
    """Returns the start time of a process; empty without such a process."""
    try:
        # Fields after the command's closing bracket; the start time is the twentieth.
        return _text(f"/proc/{pid}/stat").rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def peer(address: str) -> int:
    """Returns the pid of the listening process; 0 for a process of an invisible pid namespace."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_CONNECT_S)
        connection.connect(address)
        answer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    pid: int = _PEER.unpack(answer)[0]
    return pid


def _read(pid: int) -> DaemonProcess:
    limits = _text(f"/proc/{pid}/limits")
    held = capabilities.effective(_text(f"/proc/{pid}/status"))
    # The kernel asks for the capability in the machine's first user namespace.
    first = _text(f"/proc/{pid}/uid_map").split() == _EVERYBODY
    found = {name: _field(limits, f"Max {words} ").split()[:2] for name, words in _KINDS.items()}
    soft, hard = found["nofile"]
    return DaemonProcess(
        open_files=(_number(soft), _number(hard)),
        raises_limits=first and "CAP_SYS_RESOURCE" in held,
        hard_limits={name: _number(limit) for name, (_, limit) in found.items()},
        oom_score_adj=int(_text(f"/proc/{pid}/oom_score_adj")),
    )


def _text(path: str) -> str:
    with open(path) as file:  # noqa: PTH123 - at each start
        return file.read()


def _field(text: str, name: str) -> str:
    return next(line.removeprefix(name) for line in text.splitlines() if line.startswith(name))


def _number(text: str) -> int:
    return (1 << 64) - 1 if text == "unlimited" else int(text)
