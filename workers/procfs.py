"""Reads of /proc, and the session and the name of this process, by plain descriptors.

Python's text files would import codecs into a forked process and write to a megabyte of pages that
the process shares with the launcher.
"""

from __future__ import annotations

import os

LAUNCHER, WORKER = "cd-launcher", "cd-worker"
"""Names of processes."""
_CHUNK_BYTES = 4096
_EVERYBODY = ["0", "0", "4294967295"]


def read(path: str) -> str:
    """Reads the whole text of a file.

    Raises:
        OSError: the file does not exist, or vanishes during the read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, _CHUNK_BYTES):
            parts.append(part)
    finally:
        os.close(descriptor)
    return b"".join(parts).decode(errors="surrogateescape")


def in_user_namespace() -> bool:
    """Returns whether this process is in another user namespace than the machine's first."""
    return read("/proc/self/uid_map").split() != _EVERYBODY


def new_session() -> None:
    """Leaves the session of the process that started or forked this process."""
    if os.getsid(0) == os.getpid():
        return
    try:
        os.setsid()
    except PermissionError:
        return  # a group leader, started by hand from a shell: the shell's session will do


def set_name(name: str) -> None:
    """Sets the name of this process in `ps -o comm`; the kernel keeps 15 bytes."""
    descriptor = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, name.encode())
    finally:
        os.close(descriptor)
