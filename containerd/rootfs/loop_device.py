"""Attaches a file to a loop device: loop(4).

The kernel detaches the file when the device is neither open nor mounted any more.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Generator

_CONTROL = "/dev/loop-control"
_GET_FREE = 0x4C82
# From Linux 5.8: a single call sets the file and the flags.
_CONFIGURE = 0x4C0A
_READ_ONLY = 1
_AUTOCLEAR = 4
# struct loop_config: file, block size, struct loop_info64 up to the flags; 176 bytes with the rest
# of loop_info64 (names and keys); 64 reserved bytes.
_CONFIG = struct.Struct("=II 5Q 4I 176x 64x")
# Another process may take a free device before this process attaches the file.
_TRIES = 64


@contextlib.contextmanager
def attached(path: str) -> Generator[str, None, None]:
    """Attaches a file read-only and yields the device's path. The last unmount detaches the file.

    Raises:
        OSError: the kernel refused a call.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        device, name = _attach(file)
    finally:
        os.close(file)
    try:
        yield name
    finally:
        os.close(device)


def _attach(file: int) -> tuple[int, str]:
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            name = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
            device = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _CONFIGURE, _config(file))
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device, name
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), _CONTROL)


def _config(file: int) -> bytes:
    flags = _READ_ONLY | _AUTOCLEAR
    return _CONFIG.pack(file, 0, 0, 0, 0, 0, 0, 0, 0, 0, flags)
