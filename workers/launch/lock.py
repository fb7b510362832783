"""Which launcher serves a state directory: the one that holds the lock there.

A launcher that a plugin started leaves its place to nobody unasked. One that systemd runs ends it
and takes its place: systemd then sees to it that there is one. Workers notice nothing of all this.
"""

from __future__ import annotations

import fcntl
import os
import time

from proto.release import RELEASE
from workers import c_modules, identity, protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workers.launch.systemd import Notifier

_POLL_S = 0.01
_TEXT_BYTES = 4096


def lock(directory: int, notifier: Notifier) -> int | None:
    """A descriptor with the lock; None where another launcher has it and may keep it.

    With systemd it waits for the lock; the unit says how long.

    Args:
        directory: descriptor of the driver's state directory.
        notifier: whether systemd runs this one, and where to say what it waits for.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(protocol.LAUNCHER_LOCK, flags, 0o600, dir_fd=directory)
    while not _taken(descriptor):
        if not notifier.wanted:
            os.close(descriptor)
            return None
        notifier.status("waits for the end of the launcher that a plugin started")
        _end_holder(descriptor)
        time.sleep(_POLL_S)
    _sign(descriptor)
    return descriptor


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(descriptor: int) -> None:
    """Who holds the lock: its socket may have lost its name to systemd's."""
    own = identity.identify(os.getpid())
    os.ftruncate(descriptor, 0)
    if own is not None:
        os.pwrite(descriptor, f"{own.pid} {own.start_ticks} {RELEASE}\n".encode(), 0)


def _end_holder(descriptor: int) -> None:
    """A launcher has nothing to put away, and one that hangs hears of this signal alone.

    It holds a lock, so it is of this boot, whatever id of it the unit's own /proc shows.
    """
    numbers = os.pread(descriptor, _TEXT_BYTES, 0).split()[:2]
    if len(numbers) < 2 or not all(number.isdigit() for number in numbers):  # noqa: PLR2004
        return  # it has not signed yet
    pid, ticks = map(int, numbers)
    holder = identity.Identity(pid=pid, start_ticks=ticks, boot_id=identity.boot_id())
    pidfd = identity.open_pidfd(holder)
    if pidfd is not None:
        c_modules.pidfd_send_signal(pidfd, c_modules.SIGKILL)
        os.close(pidfd)
