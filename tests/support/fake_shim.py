"""A shim without containerd: a process of its own that runs a script and speaks ttrpc.

It does to the FIFOs what the real one does: opens the write end, blocking, then a read end; closes
them in that order when the script's output has ended. `FakeTask` is the tests' end of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

from workers import ttrpc
from workers.wire import ShimTarget

_HEADER = struct.Struct(">IIBB")
_NOT_FOUND, _UNIMPLEMENTED = 5, 12
_CREATED, _RUNNING, _STOPPED = 1, 2, 3
# In its first life, the shell waits to be started, as runc's init does.
_FIRST_LIFE = 'read -r _ && exec /bin/sh -c "$0" </dev/null'


class FakeTask:
    """One task of a fake shim. orphan: the script goes on when the shim is killed."""

    def __init__(self, name: str, script: str, logs: Path, *, orphan: bool = False) -> None:
        self.name = name
        self.stdout = logs / f"{name}.stdout.fifo"
        self.stderr = logs / f"{name}.stderr.fifo"
        self.pid = 0
        self._script = script
        self._socket = logs / f"{name}.sock"
        self._orphan = orphan
        self._shim: subprocess.Popen[bytes] | None = None
        os.mkfifo(self.stdout, 0o600)
        os.mkfifo(self.stderr, 0o600)

    def create(self) -> ShimTarget:
        """Starts the shim and the script's process, which waits."""
        places = (self._socket, self.stdout, self.stderr)
        self._shim = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.support.fake_shim", self.name),
                *map(str, places),
                "orphan" if self._orphan else "",
                self._script,
            ],
            cwd=Path(__file__).resolve().parents[2],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._shim.stdout is not None
        self.pid = int(self._shim.stdout.readline())
        return ShimTarget(
            address=f"unix://{self._socket}", api=2, namespace="fake", container_id=self.name
        )

    def start(self) -> None:
        """Runs the script."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self._socket))
            call = ttrpc.request("containerd.task.v2.Task", "Start", b"\x0a\x01-", "fake", 0)
            client.sendall(ttrpc.frame(1, call))
            client.recv(1024)

    def kill_shim(self) -> None:
        """SIGKILL to the shim."""
        assert self._shim is not None
        self._shim.kill()

    def remove(self) -> None:
        """Ends shim and script."""
        if self._shim is None:
            return
        self._shim.kill()
        self._shim.wait(10)
        if self._shim.stdout is not None:
            self._shim.stdout.close()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def serve(name: str, place: str, stdout: str, stderr: str, orphan: str, script: str) -> None:
    """The shim's life: until it is killed, as its task may be asked about after its end."""
    outputs = [os.open(path, os.O_WRONLY) for path in (stdout, stderr)]
    readers = [os.open(path, os.O_RDONLY) for path in (stdout, stderr)]
    tie = [] if orphan else ["setpriv", "--pdeathsig", "KILL", "--"]
    process = subprocess.Popen(
        [*tie, "/bin/sh", "-c", _FIRST_LIFE, script],
        stdin=subprocess.PIPE,
        stdout=outputs[0],
        stderr=outputs[1],
    )
    state = {"status": _CREATED, "code": 0, "at_ns": 0}
    ended = threading.Event()

    def reap() -> None:
        code = process.wait()
        for descriptor in (*outputs, *readers):
            os.close(descriptor)
        code = 128 - code if code < 0 else code
        state.update(status=_STOPPED, code=code, at_ns=time.time_ns())
        ended.set()

    def answer(method: str, fields: ttrpc.Fields) -> tuple[int, bytes]:
        if method != "Start" and ttrpc.octets(fields, 1).decode() != name:
            return _NOT_FOUND, b"no such task"
        match method:
            case "Wait":
                ended.wait()
                moment = {1: state["at_ns"] // 10**9, 2: state["at_ns"] % 10**9}
                return 0, ttrpc.message({1: state["code"], 2: ttrpc.message({**moment})})
            case "State":
                return 0, ttrpc.message({1: name, 3: process.pid, 4: state["status"]})
            case "Kill" if ended.is_set():
                return _NOT_FOUND, b"process already finished"
            case "Kill":
                process.send_signal(ttrpc.number(fields, 3))
                return 0, b""
            case "Start":
                state["status"] = _RUNNING
                assert process.stdin is not None
                process.stdin.write(b"\n")
                process.stdin.flush()
                return 0, b""
        return _UNIMPLEMENTED, b"not a method of this shim"

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while len(header := self.rfile.read(_HEADER.size)) == _HEADER.size:
                length, stream, _, _ = _HEADER.unpack(header)
                fields = ttrpc.parse(self.rfile.read(length))
                threading.Thread(target=self.reply, args=(stream, fields), daemon=True).start()

        def reply(self, stream: int, fields: ttrpc.Fields) -> None:
            method = ttrpc.octets(fields, 2).decode()
            if ttrpc.octets(fields, 1) != b"containerd.task.v2.Task":
                method = ""
            code, payload = answer(method, ttrpc.parse(ttrpc.octets(fields, 3)))
            body = ttrpc.message(
                {1: ttrpc.message({1: code, 2: payload})} if code else {2: payload}
            )
            with contextlib.suppress(OSError):
                self.wfile.write(_HEADER.pack(len(body), stream, 2, 0) + body)

    with _Server(place, Handler) as server:
        threading.Thread(target=reap, daemon=True).start()
        sys.stdout.write(f"{process.pid}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    serve(*sys.argv[1:])
