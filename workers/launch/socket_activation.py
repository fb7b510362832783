"""Socket of systemd for the launcher, if the socket unit is active.

The socket stays open after the end of a launcher. So systemd starts the next launcher for a new
connection, and the peer waits instead of being refused. The socket belongs to systemd: no launcher
shuts the socket down or removes the socket's name.
"""

from __future__ import annotations

import os
import struct

from proto import frames
from workers import c_modules
from workers.log import log

_DESCRIPTOR = 3
"""First and only descriptor that systemd passes to the launcher."""

_ANSWER_TIMEOUT_S = 10.0
_UCRED = struct.Struct("3i")


def listener(count: str, directory: int, name: str) -> c_modules.socket | None:
    """Returns systemd's socket; None without a socket, or if another socket has the name.

    Args:
        count: number of sockets that systemd passes, the value of LISTEN_FDS.
        directory: descriptor of the driver's state directory.
        name: name of the socket in the directory.
    """
    if count != "1":
        return None
    if not _has_its_name(directory, name):
        os.close(_DESCRIPTOR)
        log(
            f"launcher: {name} is not systemd's socket any more; the launcher creates a new socket."
            " To restore systemd's socket: systemctl stop nomad-driver-containerd-launcher.service"
            " nomad-driver-containerd-launcher.socket, then start both"
        )
        return None
    sock = c_modules.socket(fileno=_DESCRIPTOR)
    sock.setblocking(False)
    return sock


def _has_its_name(directory: int, name: str) -> bool:
    """Returns whether the parent of this process, systemd, listens at the name.

    A plugin without an answer starts another launcher, which replaces the socket at the name.
    """
    peer = c_modules.stream()
    try:
        peer.settimeout(_ANSWER_TIMEOUT_S)
        peer.connect(frames.socket_path(directory, name))
        credentials = peer.getsockopt(c_modules.SOL_SOCKET, c_modules.SO_PEERCRED, _UCRED.size)
    except OSError:
        return False
    finally:
        peer.close()
    listening, _, _ = _UCRED.unpack(credentials)
    return bool(listening == os.getppid())
