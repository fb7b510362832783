"""Facts that the kernel reports about a FIFO, read through a descriptor of its read end.

- A writer waits when every slot is taken. A slot is a page and may be half empty, so the number of
  bytes (FIONREAD) does not show a full FIFO: 55 296 of 65 536 was full. The fill level does not
  show an active reader either: a busy writer refills the FIFO before each check.
- A read() changes the FIFO's atime, on a file system mounted relatime (Linux's default), if data
  was written since: exactly the reads that may leave the number of bytes unchanged. A splice()
  changes no atime, and on a noatime mount nothing does. A completed write changes the mtime
  everywhere.
- /proc/sys/fs/pipe-user-pages-soft limits the capacity, not the content, of all pipes of a user:
  1024 pipes of the default size. Beyond the limit, new pipes of every process of the user have two
  pages, except with CAP_SYS_RESOURCE or CAP_SYS_ADMIN. Measured: with 60 FIFOs of 1 MiB, a root
  process without both, such as any process in a container, got pipes of 8 KiB instead of 64 KiB.
  So a FIFO is large only while the size is needed.
- More than /proc/sys/fs/pipe-max-size needs CAP_SYS_RESOURCE; tried to 16 MiB on Linux 6.1.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
import struct
import termios

from proto.errors import Code, DriverError
from proto.exhaustion import exhausted
from workers import procfs

USUAL_BYTES = 64 * 1024
"""Capacity of a new pipe of Linux. Measured with a reader that never pauses: a larger pipe passes
no more bytes in a second."""

_F_SETPIPE_SZ, _F_GETPIPE_SZ = 1031, 1032
_MAX_SIZE = "/proc/sys/fs/pipe-max-size"
_INT = struct.Struct("i")
_LONGEST_LINE = 16 * 1024


def open_fifo(path: str, flags: int, *, brief: str, resolution: str) -> int:
    """Opens a FIFO; any other file at the path is never opened.

    A task may have put a link, a file or a device in the place of the FIFO, and root could open any
    file. So no link is followed in the last three names of the path: for a log of Nomad's these are
    the allocation's `alloc/logs` and the FIFO, all of which tasks of the group can replace.

    Args:
        path: path of the FIFO.
        flags: flags of open().
        brief: text of the error, with {} for the path.
        resolution: advice of the error, if no resource is exhausted.

    Raises:
        DriverError: code PRECONDITION, no FIFO can be opened at the path; EXHAUSTED, no resources
            for the open are left.
    """
    try:
        named = open_reference(path, 3)
        try:
            if not stat.S_ISFIFO(os.fstat(named).st_mode):
                raise DriverError(
                    brief.format(path),
                    details="the file is not a FIFO",
                    resolution=resolution,
                    code=Code.PRECONDITION,
                )
            return os.open(f"/proc/self/fd/{named}", flags | os.O_CLOEXEC)
        finally:
            os.close(named)
    except OSError as error:
        error.filename = None  # a name within the path, which `brief` has
        raise exhausted(
            brief.format(path), error, resolution=resolution, code=Code.PRECONDITION
        ) from error


def open_reference(path: str, names: int) -> int:
    """Opens a reference (O_PATH) to a file; no link is followed in the last names of the path.

    Raises:
        OSError: the file does not exist, or another file than a directory is on the way.
    """
    base, *steps = path.rsplit("/", names)
    descriptor = os.open(base or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    while steps:
        step = steps.pop(0)
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        flags |= os.O_DIRECTORY if steps else 0
        above = descriptor
        try:
            descriptor = os.open(step, flags, dir_fd=above)
        finally:
            os.close(above)
    return descriptor


def unread(descriptor: int) -> int:
    """Returns the number of bytes in the FIFO that no reader has taken yet."""
    (count,) = _INT.unpack(fcntl.ioctl(descriptor, termios.FIONREAD, _INT.pack(0)))
    return int(count)


def capacity(descriptor: int) -> int:
    """Returns the largest number of bytes that the FIFO can hold."""
    return fcntl.fcntl(descriptor, _F_GETPIPE_SZ)


def resize(descriptor: int, size: int) -> bool:
    """Sets the capacity, rounded up to a power of two; False if the kernel refuses."""
    try:
        fcntl.fcntl(descriptor, _F_SETPIPE_SZ, size)
    except OSError:  # EBUSY: the FIFO holds more; EPERM: see above; ENOMEM
        return False
    return True


def largest_capacity() -> int:
    """Returns the largest capacity that needs no CAP_SYS_RESOURCE; 0 if /proc does not tell."""
    try:
        return int(procfs.read(_MAX_SIZE))
    except (OSError, ValueError):
        return 0


def reference(descriptor: int) -> int:
    """Opens a reference (O_PATH) to the open FIFO, which holds neither end; -1 on failure."""
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_PATH | os.O_CLOEXEC)
    except OSError:  # no /proc, no descriptor left
        return -1


def open_writer(descriptor: int) -> int:
    """Opens the write end of the open FIFO, whatever file now lies at the FIFO's path.

    Returns:
        The write end; -1 on failure, also if `descriptor` is a reference (see `reference`) and no
        process has the read end open.
    """
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no /proc, no descriptor left
        return -1


def has_writer(descriptor: int) -> bool:
    """Returns whether a process has the write end open, or has left bytes in the FIFO.

    May take a byte that is being written: only for a task that has not started yet.
    """
    if unread(descriptor):
        return True
    try:
        return os.read(descriptor, 1) != b""
    except BlockingIOError:
        return True


def is_full(descriptor: int) -> bool:
    """Returns whether a writer has to wait now.

    Opens and closes the write end: only for a FIFO with bytes in it, which had a writer before.
    """
    writer = open_writer(descriptor)
    if writer < 0:
        return False
    try:
        poll = select.poll()
        poll.register(writer, select.POLLOUT)
        return not poll.poll(0)
    finally:
        os.close(writer)


def times_ns(descriptor: int) -> tuple[int, int]:
    """Returns the time of the last read and of the last write; see the module's docstring."""
    status = os.fstat(descriptor)
    return status.st_atime_ns, status.st_mtime_ns


def discard(descriptor: int, count: int) -> int:
    """Drops `count` bytes from the FIFO, and the rest of the line, without copying.

    Returns:
        The number of dropped bytes.
    """
    try:
        sink = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:  # no descriptor is left: the next check tries again
        return 0
    dropped = 0
    try:
        dropped = os.splice(descriptor, sink, count, flags=os.SPLICE_F_NONBLOCK)
        for _ in range(_LONGEST_LINE):
            byte = os.read(descriptor, 1)
            dropped += len(byte)
            if byte in {b"\n", b""}:
                break
    except BlockingIOError:
        pass  # a reader has taken the rest
    finally:
        os.close(sink)
    return dropped
