"""What a process of ours says about itself, and reads of the kernel, by plain descriptors.

Python's text files would import codecs into a process just forked and dirty a megabyte of pages
that it shares with the launcher.
"""

from __future__ import annotations

import os
import sys
import time

LAUNCHER, WORKER = "cd-launcher", "cd-worker"
"""Names of processes."""
_CHUNK_BYTES = 4096


def read(path: str) -> str:
    """The whole text.

    Raises:
        OSError: it is not there, or is gone while it is read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, _CHUNK_BYTES):
            parts.append(part)
    finally:
        os.close(descriptor)
    return b"".join(parts).decode(errors="surrogateescape")


def new_session() -> None:
    """Leaves the session of whoever started or forked this process."""
    if os.getsid(0) == os.getpid():
        return
    try:
        os.setsid()
    except PermissionError:
        return  # a group leader: a shell started us by hand, and its session is as good


def set_name(name: str) -> None:
    """What ps -o comm shows for this process; the kernel keeps 15 bytes."""
    descriptor = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, name.encode())
    finally:
        os.close(descriptor)


def say(line: str) -> None:
    """A line on stderr: the launcher's log, which its workers share. Lost on a full disk."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    try:
        sys.stderr.write(f"{moment} [{os.getpid()}] {line}\n")
        sys.stderr.flush()
    except OSError:
        return
