"""A log reader in a separate process, as Nomad's logmon is: a test can stop and kill the reader."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.waiting import slowed

# It stops itself before it reads anything: what it has read and written by then is known.
_PROGRAM = """
import os, signal, sys, time
fifo = os.open(sys.argv[1], os.O_RDONLY)
out = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
size, pause_s = int(sys.argv[3]), float(sys.argv[4])
os.kill(os.getpid(), signal.SIGSTOP)
while block := os.read(fifo, size):
    os.write(out, block)
    time.sleep(pause_s)
"""


class LogProcess:
    """A reader of a FIFO that appends the FIFO's bytes to a file."""

    def __init__(self, fifo: Path, file: Path, *, size: int = 32768, pause_s: float = 0.0) -> None:
        self._file = file
        self._in_hand = 0
        argv = [sys.executable, "-c", _PROGRAM, str(fifo), str(file), str(size), str(pause_s)]
        self._process = subprocess.Popen(argv)
        self.reads = threading.Event()
        threading.Thread(target=self._begin, daemon=True).start()

    @property
    def data(self) -> bytes:
        """All bytes of the file, by this reader and by earlier readers."""
        return self._file.read_bytes() if self._file.exists() else b""

    def stop(self) -> None:
        """Sends SIGSTOP."""
        self.reads.wait(20)
        self._process.send_signal(signal.SIGSTOP)
        self._stopped()

    def go_on(self) -> None:
        """Sends SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Sends SIGKILL at a moment when the file has all bytes that the reader has read."""
        self.stop()
        while self._unwritten() != self._in_hand:
            self.go_on()
            self.stop()
        self.end()

    def end(self) -> None:
        """Sends SIGKILL at once; does nothing after the reader's end."""
        self._process.kill()
        self._process.wait(slowed(10))

    def finish(self) -> bytes:
        """Returns all bytes up to the end of the log."""
        assert self._process.wait(slowed(20)) == 0
        return self.data

    def _begin(self) -> None:
        if self._stopped():
            self._in_hand = self._unwritten()
            self.go_on()
            self.reads.set()

    def _stopped(self) -> bool:
        try:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)
        except ChildProcessError:
            return False  # it was ended
        return True

    def _unwritten(self) -> int:
        """Returns the number of bytes read but not written."""
        lines = Path(f"/proc/{self._process.pid}/io").read_text().splitlines()
        counts = dict(line.split(": ") for line in lines)
        return int(counts["rchar"]) - int(counts["wchar"])
