"""A launcher and workers of a test, and synchronous sockets to both in the plugin's place."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proto import frames
from proto.frames import Frame
from tests.support.closing import Closing
from tests.support.waiting import slowed, wait_until
from workers import protocol
from workers.protocol import ShimTarget, WorkerSpec

ROOT = Path(__file__).resolve().parents[3]
ANSWER_S = 20.0


def has_ended(pid: int) -> bool:
    """Returns whether a process is gone, or a zombie before the parent's wait."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(") ")[2].startswith("Z")


class Peer(Closing):
    """One connection to a launcher or worker. Events before an answer are kept."""

    def __init__(self, path: Path) -> None:
        self.events: list[Frame] = []
        self._decoder = frames.Decoder()
        self._frames: list[Frame] = []
        self._number = 0
        self.socket = socket.socket(socket.AF_UNIX)
        directory = os.open(path.parent, os.O_PATH)
        try:
            self.socket.connect(f"/proc/self/fd/{directory}/{path.name}")
        except OSError:
            self.socket.close()
            raise
        finally:
            os.close(directory)
        # Not before: with a timeout, connect() fails at once where it would have to wait.
        self.socket.settimeout(slowed(ANSWER_S))

    def close(self) -> None:
        """See `Closing.close`."""
        self.socket.close()

    def send(self, frame: Frame) -> None:
        """Sends a frame unchanged."""
        self.socket.sendall(frames.encode(frame))

    def receive(self) -> Frame | None:
        """Returns the next frame, or None at the end of the connection."""
        while not self._frames:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._frames.extend(self._decoder.feed(data))
        return self._frames.pop(0)

    def ask(self, op: str, **fields: object) -> Frame:
        """Sends a request and returns the answer, whether success or refusal."""
        self._number += 1
        self.send({"id": self._number, "op": op, **fields})
        while (frame := self.receive()) is not None:
            if frame.get("re") == self._number:
                return frame
            self.events.append(frame)
        raise AssertionError(f"the worker closed the connection before it answered {op}")

    def event(self, name: str) -> Frame:
        """Returns the next event with a name and drops earlier events of other names."""
        while True:
            frame = self.events.pop(0) if self.events else self.receive()
            if frame is None:
                raise AssertionError(f"the worker closed the connection before {name}")
            if frame.get("event") == name:
                return frame

    def watch(self, target: ShimTarget) -> Frame:
        """Asks for a watch."""
        return self.ask(protocol.WATCH, **target.to_wire())


class LauncherProcess(Closing):
    """A real launcher in a short directory of its own; `close` also ends all workers."""

    def __init__(self, python: tuple[str, ...] = (), state_dir: Path | None = None) -> None:
        self.state_dir = state_dir or Path(tempfile.mkdtemp(prefix="cdw-"))
        self.log = self.state_dir / protocol.LAUNCHER_LOG
        self._argv = [
            *(sys.executable, "-I", *python),
            *(str(ROOT / "workers" / "launcher.py"), "--state-dir", str(self.state_dir)),
        ]
        self.process = self.spawn()
        self.wait_ready()

    def close(self) -> None:
        """Ends the launcher and all its workers, and removes the directory."""
        for pid in (self.process.pid, *self.worker_pids()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(slowed(10))
        wait_until(lambda: not self.worker_pids(), 10, "workers do not end")
        subprocess.run(["rm", "-rf", str(self.state_dir)], check=True)

    def spawn(self, *options: str) -> subprocess.Popen[bytes]:
        """Starts one more launcher for the same directory."""
        return subprocess.Popen(
            [*self._argv, *options],
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_ready(self) -> None:
        """Waits until the launcher answers.

        A killed launcher's last children hold its socket for a moment, so connecting is no proof.
        """
        wait_until(self._listens, 20, self._tail)

    def connect(self) -> Peer:
        """Connects to the launcher."""
        return Peer(self.state_dir / protocol.LAUNCHER_SOCKET)

    def task_dir(self, name: str) -> Path:
        """Returns the state directory of a task, created at the first call."""
        directory = self.state_dir / name
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory

    def fork(
        self, name: str, stdout: Path | str = "", stderr: Path | str = "", **more: Any
    ) -> tuple[Peer, Frame]:
        """Forks a worker; returns its first connection and frame, `ready` or `failed`."""
        spec = WorkerSpec(
            name=name, dir=str(self.task_dir(name)), stdout=str(stdout), stderr=str(stderr), **more
        )
        return self.fork_with(spec.to_wire())

    def fork_with(self, spec: Mapping[str, object]) -> tuple[Peer, Frame]:
        """Forks a worker with any spec, see `fork`."""
        peer = self.connect()
        peer.send({"op": protocol.FORK, **protocol.STATED, "spec": dict(spec)})
        first = peer.receive()
        assert first is not None, self._tail()
        return peer, first

    def worker(
        self, name: str, stdout: Path | str = "", stderr: Path | str = "", **more: Any
    ) -> Peer:
        """Returns the first connection of a worker that is ready; `more` is for its spec."""
        peer, first = self.fork(name, stdout, stderr, **more)
        assert first.get("event") == protocol.READY, first
        return peer

    def control(self, name: str) -> Peer:
        """Opens one more connection to a worker."""
        return Peer(self.state_dir / name / protocol.CONTROL_SOCKET)

    def worker_pids(self) -> list[int]:
        """Lists the processes that a launcher of this directory has forked."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    if str(self.state_dir).encode() in words:
                        found.append(int(entry.name))
        return found

    def _listens(self) -> bool:
        hello = {"id": 1, "op": protocol.HELLO, **protocol.STATED}
        try:
            with self.connect() as peer:
                peer.send(hello)
                answer = peer.receive()
        except OSError:
            return False
        return answer is not None and answer.get("pid") == self.process.pid

    def _tail(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else "no log"


class LogReader:
    """A reader that treats a FIFO as Nomad's logmon does: open, blocking, and read to EOF."""

    def __init__(self, path: Path) -> None:
        self.data = bytearray()
        self.opened = threading.Event()
        self.eof = threading.Event()
        self._path = path
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def finish(self) -> bytes:
        """Returns all bytes up to EOF."""
        assert self.eof.wait(slowed(ANSWER_S)), f"no EOF after {len(self.data)} bytes"
        self._thread.join(slowed(ANSWER_S))
        return bytes(self.data)

    def _read(self) -> None:
        descriptor = os.open(self._path, os.O_RDONLY)
        self.opened.set()
        try:
            while block := os.read(descriptor, 65536):
                self.data += block
            self.eof.set()
        finally:
            os.close(descriptor)
