"""Lock of the launcher: the launcher with the lock of a state directory serves the directory.

A launcher of systemd ends the launcher that a plugin started, and takes the lock: systemd then
restarts the launcher after a failure. Any other launcher leaves the present launcher alone. Workers
are not affected.
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
    """Takes the lock. A launcher of systemd ends the holder and waits, as long as the unit allows.

    Args:
        directory: descriptor of the driver's state directory.
        notifier: tells whether systemd runs this launcher, and shows the wait as status.

    Returns:
        A descriptor with the lock; None if another launcher keeps the lock.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(protocol.LAUNCHER_LOCK, flags, 0o600, dir_fd=directory)
    while not _try_lock(descriptor):
        if not notifier.wanted:
            os.close(descriptor)
            return None
        notifier.status("waiting for the end of the launcher that a plugin started")
        _end_holder(descriptor)
        time.sleep(_POLL_S)
    _sign(descriptor)
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(descriptor: int) -> None:
    """Writes the holder's identity, because systemd's socket may have replaced the holder's."""
    this = identity.identify(os.getpid())
    os.ftruncate(descriptor, 0)
    if this is not None:
        os.pwrite(descriptor, f"{this.pid} {this.start_ticks} {RELEASE}\n".encode(), 0)


def _end_holder(descriptor: int) -> None:
    """Kills the holder. A launcher has nothing to clean up, and SIGKILL also ends a hung launcher.

    The holder of a lock belongs to the present boot, whatever boot id the unit's own /proc shows.
    """
    numbers = os.pread(descriptor, _TEXT_BYTES, 0).split()[:2]
    if len(numbers) < 2 or not all(number.isdigit() for number in numbers):  # noqa: PLR2004
        return  # the holder has not written the identity yet
    pid, ticks = map(int, numbers)
    holder = identity.Identity(pid=pid, start_ticks=ticks, boot_id=identity.boot_id())
    pidfd = identity.open_pidfd(holder)
    if pidfd is not None:
        c_modules.pidfd_send_signal(pidfd, c_modules.SIGKILL)
        os.close(pidfd)
