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
import struct
import termios

from workers import procfs

USUAL_BYTES = 64 * 1024
"""What Linux gives a new pipe. Measured, a larger one passes on no more bytes in a second."""

_F_SETPIPE_SZ, _F_GETPIPE_SZ = 1031, 1032
_MAX_SIZE = "/proc/sys/fs/pipe-max-size"
_INT = struct.Struct("i")
_LONGEST_LINE = 16 * 1024


def unread(descriptor: int) -> int:
    """Bytes in it that no reader has taken yet."""
    (count,) = _INT.unpack(fcntl.ioctl(descriptor, termios.FIONREAD, _INT.pack(0)))
    return int(count)


def room(descriptor: int) -> int:
    """How many bytes it holds at best."""
    return fcntl.fcntl(descriptor, _F_GETPIPE_SZ)


def resize(descriptor: int, size: int) -> bool:
    """Gives it so much room, or the next power of two above; False where the kernel refuses."""
    try:
        fcntl.fcntl(descriptor, _F_SETPIPE_SZ, size)
    except OSError:  # EBUSY: it holds more; EPERM: see above; ENOMEM
        return False
    return True


def most_room() -> int:
    """What a process without CAP_SYS_RESOURCE may give a FIFO; 0 where /proc does not tell."""
    try:
        return int(procfs.read(_MAX_SIZE))
    except (OSError, ValueError):
        return 0


def name(descriptor: int) -> int:
    """A descriptor that only names the FIFO that is open and holds neither end; -1 if none."""
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_PATH | os.O_CLOEXEC)
    except OSError:  # no /proc, no descriptors left
        return -1


def open_writer(descriptor: int) -> int:
    """The write end of the very FIFO that is open, whatever lies at its path by now.

    -1 if none: also where the descriptor only names it and nobody has it open for reading.
    """
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no /proc, no descriptors left
        return -1


def has_writer(descriptor: int) -> bool:
    """Returns whether somebody has the write end open, or has left something in it.

    Takes what is written in this very moment: only for a task that was not started yet.
    """
    if unread(descriptor):
        return True
    try:
        return os.read(descriptor, 1) != b""
    except BlockingIOError:
        return True


def is_full(descriptor: int) -> bool:
    """Returns whether a writer has to wait now.

    Opens and closes the write end: only for a FIFO that holds something, whose writer has been
    there already.
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


def touched_ns(descriptor: int) -> tuple[int, int]:
    """When somebody has read last, and written; see above for what that is worth."""
    status = os.fstat(descriptor)
    return status.st_atime_ns, status.st_mtime_ns


def discard(descriptor: int, count: int) -> int:
    """Takes so many bytes out of it and throws them away, and on to the end of the line.

    Nothing is copied. Returns how many bytes there were.
    """
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:  # no descriptor is left: the next look tries again
        return 0
    gone = 0
    try:
        gone = os.splice(descriptor, nowhere, count, flags=os.SPLICE_F_NONBLOCK)
        for _ in range(_LONGEST_LINE):
            byte = os.read(descriptor, 1)
            gone += len(byte)
            if byte in {b"\n", b""}:
                break
    except BlockingIOError:
        pass  # a reader has come and taken the rest
    finally:
        os.close(nowhere)
    return gone
