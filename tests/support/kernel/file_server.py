"""A file server that can be made silent: a process that answers the kernel at /dev/fuse.

The root has a directory of every name; these directories are empty. `stop` stops the process:
requests stay unread. `swallow` makes the process read requests without an answer: their callers
cannot even be killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from containerd import syscalls
from tests.support.closing import Closing
from tests.support.needs import missing
from tests.support.waiting import wait_until

_SERVER = r"""
import os, signal, struct, sys

DEVICE, AVOIDED = int(sys.argv[1]), sys.argv[2]
HEADER = struct.Struct("<IIQQIIIHH")
LOOKUP, FORGET, GETATTR, INIT, OPENDIR, READDIR, RELEASEDIR = 1, 2, 3, 26, 27, 28, 29
NO_ANSWER = {FORGET, 36, 42}
ENOENT, ENOSYS = 2, 38
held, silent = [], False

def attributes(node):
    return struct.pack("<Q40xIIIIIIIIII", node, 0, 0, 0, 0o40755, 2, 0, 0, 0, 512, 0)

def body(operation, node):
    if operation == INIT:
        return struct.pack("<IIIIHHIIHH8I", 7, 31, 4096, 0, 12, 9, 4096, 1, 1, 0, *[0] * 8)
    if operation == GETATTR:
        return struct.pack("<QII", 0, 0, 0) + attributes(node)
    if operation == LOOKUP and node == 1:
        return struct.pack("<QQQQII", 2, 0, 0, 0, 0, 0) + attributes(2)
    if operation == OPENDIR:
        return bytes(16)
    if operation in {READDIR, RELEASEDIR}:
        return b""
    return ENOENT if operation == LOOKUP else ENOSYS

def answer(unique, operation, node):
    found = body(operation, node)
    error, found = (0, found) if isinstance(found, bytes) else (-found, b"")
    try:
        os.write(DEVICE, struct.pack("<IiQ", 16 + len(found), error, unique) + found)
    except OSError:
        pass  # whoever asked was killed

def avoided(pid):
    try:
        with open(f"/proc/{pid}/comm") as file:
            return bool(AVOIDED) and file.read().startswith(AVOIDED)
    except OSError:
        return False

def swallow(*_):
    global silent
    silent = True

def speak(*_):
    global silent
    silent = False
    while held:
        answer(*held.pop())

signal.signal(signal.SIGUSR1, swallow)
signal.signal(signal.SIGUSR2, speak)
print("ready", flush=True)
while True:
    try:
        request = os.read(DEVICE, 1 << 20)
    except OSError:
        break  # unmounted
    _, operation, unique, node, _, _, pid, _, _ = HEADER.unpack_from(request)
    if operation in NO_ANSWER:
        continue
    if silent or avoided(pid):
        if not held:
            print("held", flush=True)
        held.append((unique, operation, node))
    else:
        answer(unique, operation, node)
"""
_READ_BYTES = 1 << 16


class FileServer(Closing):
    """A file system, mounted from the construction until `close`.

    Args:
        point: the mount point.
        avoids: the start of the names of programs that get no answer.
    """

    def __init__(self, point: Path, avoids: str = "") -> None:
        if os.geteuid() != 0 or not Path("/dev/fuse").exists():
            missing("root", "not root, or no /dev/fuse")
        self.point = point
        with contextlib.suppress(FileExistsError):
            os.mkdir(point)  # noqa: PTH102 - pathlib would look at a silent one's root
        device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
        syscalls.mount("silent-server", str(point), "fuse", 0, options)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _SERVER, str(device), avoids],
            pass_fds=(device,),
            stdout=subprocess.PIPE,
        )
        os.close(device)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def stop(self) -> None:
        """Stops reading and answering."""
        self._process.send_signal(signal.SIGSTOP)

    def swallow(self) -> None:
        """Stops answering, but goes on reading."""
        self._process.send_signal(signal.SIGUSR1)
        wait_until(self._is_waiting, 10, "the server does not take the signal")

    def holds(self) -> bool:
        """Returns whether a request waits for an answer; counts all callers once."""
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        return b"held" in (self._process.stdout.read() or b"")

    def answer(self) -> None:
        """Answers again, also the requests that waited."""
        self._process.send_signal(signal.SIGUSR2)
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Unmounts the file system and ends the server: callers that wait get an error."""
        with contextlib.suppress(OSError):  # a test may have detached it
            syscalls.unmount(str(self.point))
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _is_waiting(self) -> bool:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        pending = int(status.partition("SigPnd:")[2].split()[0], 16)
        shared = int(status.partition("ShdPnd:")[2].split()[0], 16)
        return not pending | shared and "S (sleeping)" in status
