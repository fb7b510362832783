"""The socket that systemd listens on for the launcher, where its socket unit is active.

It stays open when a launcher ends, so that who connects meanwhile waits for the next one, which
systemd starts then, instead of being refused. It is systemd's: no launcher shuts it down or takes
its name away.
"""

from __future__ import annotations

import os
import struct

from proto import frames
from workers import c_modules, procfs

_DESCRIPTOR = 3
"""The first, and here the only one, of the sockets that systemd hands over."""

_ANSWER_TIMEOUT_S = 10.0
_UCRED = struct.Struct("3i")


def listener(count: str, directory: int, name: str) -> c_modules.socket | None:
    """Systemd's socket; None where there is none, or nobody can reach it any more.

    Args:
        count: how many sockets systemd hands over, as LISTEN_FDS says it.
        directory: descriptor of the driver's state directory.
        name: of the socket in there.
    """
    if count != "1":
        return None
    if not _has_its_name(directory, name):
        os.close(_DESCRIPTOR)
        procfs.say(
            f"launcher: {name} is not systemd's socket any more, this launcher makes its own;"
            " to mend it: systemctl stop nomad-driver-containerd-launcher.service"
            " nomad-driver-containerd-launcher.socket, then start both"
        )
        return None
    sock = c_modules.socket(fileno=_DESCRIPTOR)
    sock.setblocking(False)
    return sock


def _has_its_name(directory: int, name: str) -> bool:
    """Returns whether who connects to the name comes to the process that started this one: systemd.

    A plugin that got no answer starts a launcher of its own, which takes the name.
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
