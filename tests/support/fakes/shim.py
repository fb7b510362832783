"""A shim without containerd: a process that runs a script and speaks ttrpc.

The shim treats the FIFOs like the real shim: it opens the write end, blocking, then a read end, and
closes them in that order at the script's end. `FakeShim` and `FakeTask` are the tests' side.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from proto.errors import Code, DriverError
from tests.support.waiting import slowed
from workers.health.exec_calls import EXEC_ID
from workers.protocol import ShimTarget
from workers.shim import ttrpc

_HEADER = struct.Struct(">IIBB")
_UNKNOWN, _NOT_FOUND, _UNIMPLEMENTED = 2, 5, 12
_ALREADY_EXISTS = 6
_CREATED, _RUNNING, _STOPPED, _PAUSED = 1, 2, 3, 4
# In its first life, the shell waits to be started, as runc's init does.
_FIRST_LIFE = 'read -r _ && exec /bin/sh -c "$0" </dev/null'


class FakeShim:
    """A shim process with one task. Empty log paths mean /dev/null.

    `orphan` lets the script outlive a killed shim. `create` needs a reader or a keeper on both
    FIFOs.
    """

    def __init__(
        self, name: str, script: str, place: Path, logs: tuple[str, str], *, orphan: bool = False
    ) -> None:
        self.name = name
        self.pid = 0
        self._script = script
        self._socket = place
        self._logs = logs
        self._orphan = orphan
        self._shim: subprocess.Popen[bytes] | None = None

    def create(self) -> ShimTarget:
        """Starts the shim and the script's process, which waits for `start`."""
        self._shim = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.support.fakes.shim", self.name),
                *(str(self._socket), *(path or os.devnull for path in self._logs)),
                "orphan" if self._orphan else "",
                self._script,
            ],
            cwd=Path(__file__).resolve().parents[3],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._shim.stdout is not None
        self.pid = int(self._shim.stdout.readline() or 0)
        return ShimTarget(
            address=f"unix://{self._socket}", api=2, namespace="fake", container_id=self.name
        )

    def start(self) -> None:
        """Runs the script."""
        self.call("Start", ttrpc.message({1: self.name}))

    def call(self, method: str, payload: bytes) -> bytes:
        """Sends one call of the task API and returns the answer.

        Raises:
            DriverError: the shim refused the call.
        """
        decoder = ttrpc.Decoder()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self._socket))
            envelope = ttrpc.request("containerd.task.v2.Task", method, payload, "fake", 0)
            client.sendall(ttrpc.frame(1, envelope))
            while data := client.recv(65536):
                for _, body in decoder.feed(data):
                    answer, error = ttrpc.response(body)
                    if error is not None:
                        raise error
                    return answer
        raise DriverError("the fake shim closed the connection", code=Code.UNAVAILABLE)

    def refuse_kill(self, text: str) -> None:
        """Makes each later Kill fail, as a runtime that cannot be started does."""
        _refusal(self._socket).write_text(text)

    def pause(self) -> None:
        """Stops the script as a pause does: State says so, and no exec is taken."""
        _pause(self._socket).touch()
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Continues a paused script."""
        os.killpg(self.pid, signal.SIGCONT)
        _pause(self._socket).unlink()

    def kill_shim(self) -> None:
        """Sends SIGKILL to the shim."""
        assert self._shim is not None
        self._shim.kill()

    def remove(self) -> None:
        """Ends shim and script."""
        if self._shim is None:
            return
        with contextlib.suppress(DriverError, OSError):
            self.call("Kill", ttrpc.message({1: self.name, 2: EXEC_ID, 3: int(signal.SIGKILL)}))
        kill_group(self.pid)
        self._shim.kill()
        self._shim.wait(slowed(10))
        if self._shim.stdout is not None:
            self._shim.stdout.close()


class FakeTask(FakeShim):
    """A task with log FIFOs of its own in the directory `logs`."""

    def __init__(self, name: str, script: str, logs: Path, *, orphan: bool = False) -> None:
        self.stdout = logs / f"{name}.stdout.fifo"
        self.stderr = logs / f"{name}.stderr.fifo"
        os.mkfifo(self.stdout, 0o600)
        os.mkfifo(self.stderr, 0o600)
        places = (str(self.stdout), str(self.stderr))
        super().__init__(name, script, logs / f"{name}.sock", places, orphan=orphan)


def kill_group(pid: int, number: int = signal.SIGKILL) -> None:
    """Signals all processes of a task: the first process leads a process group."""
    with contextlib.suppress(ProcessLookupError):
        if pid:
            os.killpg(pid, number)


def _refusal(place: Path) -> Path:
    return place.with_suffix(".refusal")


def _pause(place: Path) -> Path:
    return place.with_suffix(".paused")


class _Exec:
    """A further process of the task, with one file for both outputs."""

    def __init__(self, output: str, process: bytes) -> None:
        self._output = output
        self._process = json.loads(process)
        self._ended = threading.Event()
        self.running: subprocess.Popen[bytes] | None = None

    @property
    def program(self) -> str:
        """The name of the program."""
        return str(self._process["args"][0])

    def start(self) -> int:
        """Starts the process."""
        with Path(self._output).open("r+b", buffering=0) as output:
            self.running = subprocess.Popen(
                self._process["args"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(item.split("=", 1) for item in self._process.get("env", [])),
                start_new_session=True,
            )
        threading.Thread(target=self._reap, daemon=True).start()
        return self.running.pid

    def _reap(self) -> None:
        assert self.running is not None
        self.running.wait()
        self._ended.set()

    def wait(self) -> int:
        """Returns the exit code in a shim's terms after the end."""
        self._ended.wait()
        code = self.running.returncode if self.running else 0
        return 128 - code if code < 0 else code

    @property
    def status(self) -> int:
        """The status in a shim's terms."""
        if self.running is None:
            return _CREATED
        return _STOPPED if self._ended.is_set() else _RUNNING


class _Execs:
    """The execs of one shim, by name."""

    def __init__(self, place: Path) -> None:
        self._execs: dict[str, _Exec] = {}
        self._pause = _pause(place)

    def answer(self, method: str, name: str, fields: ttrpc.Fields) -> tuple[int, bytes]:
        """Answers a call with an exec id."""
        if method == "Exec":
            return self._create(name, fields)
        one = self._execs.get(name)
        if one is None:
            return _NOT_FOUND, f"process does not exist {name}".encode()
        match method:
            case "Start":
                return self._start(one)
            case "Wait":
                return 0, ttrpc.message({1: one.wait()})
            case "State":
                pid = one.running.pid if one.running else 0
                return 0, ttrpc.message({1: name, 3: pid, 4: one.status})
            case "Kill" if one.running is not None and one.status == _RUNNING:
                one.running.send_signal(ttrpc.number(fields, 3))
                return 0, b""
            case "Kill":
                return _NOT_FOUND, b"process already finished"
            case "Delete" if one.status == _RUNNING:
                return _UNKNOWN, b"cannot delete a running process"
            case "Delete":
                del self._execs[name]
                return 0, b""
        return _UNIMPLEMENTED, b"not a method of this shim"

    def _create(self, name: str, fields: ttrpc.Fields) -> tuple[int, bytes]:
        if self._pause.exists():
            return _UNKNOWN, b"cannot exec in a paused state"
        if name in self._execs:
            return _ALREADY_EXISTS, f"id {name}".encode()
        spec = ttrpc.parse(ttrpc.octets(fields, 7))
        self._execs[name] = _Exec(ttrpc.octets(fields, 5).decode(), ttrpc.octets(spec, 2))
        return 0, b""

    def _start(self, one: _Exec) -> tuple[int, bytes]:
        program = one.program
        if shutil.which(program) is None:
            return _UNKNOWN, f'exec: "{program}": executable file not found in $PATH'.encode()
        return 0, ttrpc.message({1: one.start()})


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def serve(name: str, place: str, stdout: str, stderr: str, orphan: str, script: str) -> None:
    """Serves the task API until a kill: the plugin may ask about an ended task."""
    outputs = [os.open(path, os.O_WRONLY) for path in (stdout, stderr)]
    readers = [os.open(path, os.O_RDONLY) for path in (stdout, stderr)]
    tie = [] if orphan else ["setpriv", "--pdeathsig", "KILL", "--"]
    process = subprocess.Popen(
        [*tie, "/bin/sh", "-c", _FIRST_LIFE, script],
        stdin=subprocess.PIPE,
        stdout=outputs[0],
        stderr=outputs[1],
        start_new_session=True,
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

    def moment() -> bytes:
        return ttrpc.message({1: state["at_ns"] // 10**9, 2: state["at_ns"] % 10**9})

    refusal, paused = _refusal(Path(place)), _pause(Path(place))
    execs = _Execs(Path(place))

    def answer(method: str, fields: ttrpc.Fields) -> tuple[int, bytes]:
        if method != "Start" and ttrpc.octets(fields, 1).decode() != name:
            return _NOT_FOUND, b"no such task"
        if exec_id := ttrpc.octets(fields, 2).decode():
            return execs.answer(method, exec_id, fields)
        match method:
            case "Wait":
                ended.wait()
                return 0, ttrpc.message({1: state["code"], 2: moment()})
            case "State":
                told: dict[int, Any] = {
                    1: name,
                    3: process.pid,
                    4: _PAUSED if paused.exists() else state["status"],
                    9: state["code"],
                }
                return 0, ttrpc.message({**told, 10: moment()})
            case "Kill" if ended.is_set():
                return _NOT_FOUND, b"process already finished"
            case "Kill" if refusal.exists():
                return _UNKNOWN, refusal.read_bytes()
            case "Kill":
                if ttrpc.number(fields, 4):
                    kill_group(process.pid, ttrpc.number(fields, 3))
                else:
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
