"""What a process of ours says about itself, and reads of the kernel, by plain descriptors.

Python's text files would import codecs into a process just forked and dirty a megabyte of pages
that it shares with the launcher.
"""

from __future__ import annotations

import os
import sys
import time

from proto.errors import cut

LAUNCHER, WORKER = "cd-launcher", "cd-worker"
"""Names of processes."""
_CHUNK_BYTES = 4096
_LINE, _REASON = 2000, 500


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
    line = cut(line, _LINE)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    try:
        sys.stderr.write(f"{moment} [{os.getpid()}] {line}\n")
        sys.stderr.flush()
    except OSError:
        return


def say_crash(error: BaseException) -> None:
    """A line on what a process of ours ends of: a defect. Its words may hold what a peer sent."""
    places = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{step.tb_lineno}")
        step = step.tb_next
    why = cut(str(error), _REASON)
    say(f"unexpected failure: {type(error).__name__}: {why} (at {', '.join(places)})")
