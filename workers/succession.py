"""Which launcher serves a state directory: the one that holds the lock there.

A launcher that a plugin started leaves its place to nobody unasked. One that systemd runs asks it
to retire: systemd then sees to it that there is one. Workers notice nothing of all this.
"""

from __future__ import annotations

import fcntl
import os

from proto import frames
from workers import bare, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workers.notify import Notifier

_ANSWER_TIMEOUT_S = 10.0
_CHUNK_BYTES = 4096


def lock(directory: int, notifier: Notifier) -> int | None:
    """A descriptor with the lock; None where another launcher has it and may keep it.

    With systemd it waits for the lock; the unit says how long.

    Args:
        directory: descriptor of the driver's state directory.
        notifier: whether systemd runs this one, and where to say what it waits for.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(wire.LAUNCHER_LOCK, flags, 0o600, dir_fd=directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not notifier.wanted:
            return None
        notifier.status("waits until the launcher that a plugin started has retired")
        _ask_to_retire(directory)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _ask_to_retire(directory: int) -> None:
    peer = bare.stream()
    try:
        peer.settimeout(_ANSWER_TIMEOUT_S)
        peer.connect(f"/proc/self/fd/{directory}/{wire.LAUNCHER_SOCKET}")
        peer.sendall(frames.encode({"op": wire.RETIRE, **wire.STATED}))
        peer.recv(_CHUNK_BYTES)
    except OSError:
        return  # it ends already
    finally:
        peer.close()
