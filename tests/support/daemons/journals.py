"""Two journals: systemd's own journald in a mount namespace of the test, and a recording socket."""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.support.needs import missing, need_root_here
from tests.support.waiting import slowed, wait_until

_JOURNALD = Path("/lib/systemd/systemd-journald")
_PLACES = "cd /run && mkdir -p systemd log && mount -t tmpfs j systemd && mount -t tmpfs j log"
_HIDDEN = "if test -d /var/log/journal; then mount -t tmpfs j /var/log/journal; fi"
_SEALED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

Message = dict[str, str]


class RealJournal:
    """A systemd-journald, whose socket other namespaces reach through /proc."""

    def __init__(self) -> None:
        if not _JOURNALD.exists() or shutil.which("journalctl") is None:
            missing("nomad", "systemd-journald is not installed")
        need_root_here()
        self._holder = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", f"{_PLACES} && {_HIDDEN} && echo && exec sleep 1000"],
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"\n", "no mount namespace for journald"
        self.socket = f"/proc/{self._holder.pid}/root/run/systemd/journal/socket"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Starts journald."""
        self._process = subprocess.Popen(self._inside(str(_JOURNALD)), stderr=subprocess.DEVNULL)
        wait_until(self._listens, 10, "journald does not listen")

    def stop(self) -> None:
        """Ends journald."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(slowed(10))
        Path(self.socket).unlink(missing_ok=True)

    def messages(self) -> list[Message]:
        """Returns all messages of containers, the oldest first."""
        done = subprocess.run(
            self._inside("journalctl", "-o", "json", "--all", "--no-pager", "CONTAINER_NAME=c1"),
            capture_output=True,
            check=False,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    def close(self) -> None:
        """Ends journald and the namespace."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(slowed(10))
        self._holder.kill()
        self._holder.wait(slowed(10))
        if self._holder.stdout is not None:
            self._holder.stdout.close()

    def _inside(self, *command: str) -> list[str]:
        return ["nsenter", "-t", str(self._holder.pid), "-m", "--", *command]

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            return probe.connect_ex(self.socket) == 0


class RecordingJournal:
    """A socket that stores the messages."""

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="cdj-")
        self.socket = f"{self._directory}/socket"
        self._messages: list[Message] = []
        self.reads = True
        self._listener: socket.socket | None = None
        self.start()

    def start(self) -> None:
        """Opens the socket."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._listener.bind(self.socket)

    def stop(self) -> None:
        """Stores all messages that have come, and closes the socket."""
        self.messages()
        assert self._listener is not None
        self._listener.close()
        self._listener = None
        Path(self.socket).unlink()

    def messages(self) -> list[Message]:
        """Returns all messages, the oldest first."""
        with contextlib.suppress(BlockingIOError):
            while self.reads and self._listener is not None:
                data, ancillary, _, _ = self._listener.recvmsg(1 << 20, socket.CMSG_SPACE(4))
                self._messages.append(_fields(_sealed(ancillary[0][2]) if ancillary else data))
        return list(self._messages)

    def close(self) -> None:
        """Closes the socket."""
        if self._listener is not None:
            self._listener.close()
        shutil.rmtree(self._directory)


def _sealed(rights: bytes) -> bytes:
    (file,) = array.array("i", rights)
    try:
        assert fcntl.fcntl(file, fcntl.F_GET_SEALS) & _SEALED == _SEALED
        return os.pread(file, 1 << 22, 0)
    finally:
        os.close(file)


def _fields(data: bytes) -> Message:
    assert data.endswith(b"\n")
    pairs = (line.partition(b"=") for line in data[:-1].split(b"\n"))
    return {name.decode(): value.decode() for name, _, value in pairs}
