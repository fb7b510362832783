"""The limit of open files of containerd's own process: tasks inherit it unless their spec has one.

A shim is containerd's child and a runtime the shim's: they hand the limit on, and can raise it only
where containerd may.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from containerd.security import capabilities

_CONNECT_S = 1.0
_PEER = struct.Struct("=iII")
# Those of systemd, and so of containerd in its newer units. Programs that need more raise their own
# soft limit; those that use select(2), or close all there may be, suffer from a high one.
OPEN_FILES = (1024, 524288)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonProcess:
    """open_files is (soft, hard). free: with CAP_SYS_RESOURCE it may give more than it has."""

    open_files: tuple[int, int]
    free: bool

    def task_open_files(self) -> tuple[int, int]:
        """Returns the soft and the hard limit of tasks that name none."""
        soft, hard = OPEN_FILES
        most = hard if self.free else min(hard, self.open_files[1])
        return min(soft, most), most


# Where containerd cannot be looked at, it is what its unit makes it.
USUAL = DaemonProcess(open_files=OPEN_FILES, free=True)


def look(address: str) -> DaemonProcess:
    """Looks at the process behind containerd's socket. Blocks for a moment, and never fails."""
    try:
        return _of(_peer(address))
    except (OSError, ValueError, StopIteration):
        return USUAL


def _peer(address: str) -> int:
    """The process that listens; 0 is one of a namespace that this one does not see."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_CONNECT_S)
        connection.connect(address)
        answer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    pid: int = _PEER.unpack(answer)[0]
    return pid


def _of(pid: int) -> DaemonProcess:
    place = Path(f"/proc/{pid}")
    soft, hard = _field(place / "limits", "Max open files").split()[:2]
    held = capabilities.effective((place / "status").read_text())
    return DaemonProcess(open_files=(_number(soft), _number(hard)), free="CAP_SYS_RESOURCE" in held)


def _field(path: Path, name: str) -> str:
    lines = path.read_text().splitlines()
    return next(line.removeprefix(name).strip() for line in lines if line.startswith(name))


def _number(text: str) -> int:
    return (1 << 64) - 1 if text == "unlimited" else int(text)
