"""Connection to a containerd shim, on the worker's loop.

The worker sends Wait, State and Kill, and the calls of a health check's exec, of which containerd
has no metadata. Every change of containerd's metadata goes through containerd. Wait stays
outstanding for the life of the task, also across a restart of containerd.
"""

from __future__ import annotations

import os

from proto import frames
from proto.errors import Code, DriverError
from proto.exhaustion import advice, exhausted
from workers import c_modules
from workers.loop import READ, WRITE, would_block
from workers.shim import ttrpc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.loop import Loop
    from workers.protocol import ShimTarget

    Answer = Callable[[bytes, DriverError | None], None]

_APIS = {2: "containerd.task.v2.Task", 3: "containerd.task.v3.Task"}
_CALL_TIMEOUT_NS = 10_000_000_000
_CHUNK_BYTES = 4096


class Shim:
    """A connected shim.

    Args:
        loop: the worker's loop.
        target: the shim and the container.
        on_lost: called once with the reason when the shim or the connection is gone, unless
            `close` was called. Open calls are answered with UNAVAILABLE before.

    Raises:
        DriverError: UNAVAILABLE, the shim does not accept; EXHAUSTED, no descriptor is left;
            UNSUPPORTED, unknown api.
    """

    def __init__(self, loop: Loop, target: ShimTarget, on_lost: Callable[[str], None]) -> None:
        if target.api not in _APIS:
            raise DriverError(
                f"the shim of container {target.container_id} speaks an unknown task API",
                details=f"version {target.api}",
                resolution="this release speaks 2 and 3; upgrade the driver",
                code=Code.UNSUPPORTED,
            )
        self._loop = loop
        self._service = _APIS[target.api]
        self._namespace = target.namespace
        self._id = target.container_id
        self._on_lost = on_lost
        self._answers: dict[int, Answer] = {}
        self._next_stream = 1
        self._decoder = ttrpc.Decoder()
        self._out = bytearray()
        self._closing = False
        self._socket: c_modules.socket | None = _connect(target.address, target.container_id)
        loop.watch(self._socket.fileno(), READ, self._on_ready)

    @property
    def connected(self) -> bool:
        """True while the connection is open."""
        return self._socket is not None

    def wait(self, answer: Answer) -> None:
        """Asks for the exit. The answer comes at the end of the task; at once after the end."""
        self.call("Wait", ttrpc.wait_request(self._id), 0, answer)

    def state(self, answer: Answer) -> None:
        """Asks for pid and status."""
        self.call("State", ttrpc.state_request(self._id), _CALL_TIMEOUT_NS, answer)

    def kill(self, signal: int, *, everyone: bool, answer: Answer) -> None:
        """Lets the runtime signal the first process, or all processes of the container."""
        payload = ttrpc.kill_request(self._id, signal, everyone=everyone)
        self.call("Kill", payload, _CALL_TIMEOUT_NS, answer)

    def close_when_idle(self) -> None:
        """Closes after the answer to the last open call. No further call may follow."""
        self._closing = True
        if not self._answers:
            self.close()

    def close(self) -> None:
        """Closes now; open calls are not answered."""
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
        self._answers.clear()

    def call(self, method: str, payload: bytes, timeout_ns: int, answer: Answer) -> None:
        """Calls a method of the shim's Task service; a time of 0 is no limit."""
        if self._socket is None:
            answer(b"", _gone(self._id, "the connection is closed"))
            return
        stream = self._next_stream
        self._next_stream += 2
        self._answers[stream] = answer
        data = ttrpc.request(self._service, method, payload, self._namespace, timeout_ns)
        self._out += ttrpc.frame(stream, data)
        self._flush()

    def _on_ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self._socket is None or not events & ~WRITE:
            return
        try:
            data = self._socket.recv(_CHUNK_BYTES)
        except OSError as error:
            if not would_block(error):
                self._lose(str(error))
            return
        if not data:
            self._lose("the shim closed the connection")
            return
        self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            for stream, body in self._decoder.feed(data):
                payload, error = ttrpc.response(body)
                answer = self._answers.pop(stream, None)
                if answer is not None:
                    answer(payload, error)
        except DriverError as error:
            self._lose(str(error))
            return
        if self._closing and not self._answers:
            self.close()

    def _flush(self) -> None:
        if self._socket is None:
            return
        try:
            while self._out:
                del self._out[: self._socket.send(self._out)]
        except OSError as error:
            if not would_block(error):
                # Not inside a call: the loss would be reported before the call returns.
                reason = str(error)
                self._loop.later(0, lambda: self._lose(reason))
                return
        events = READ | WRITE if self._out else READ
        self._loop.watch(self._socket.fileno(), events, self._on_ready)

    def _lose(self, reason: str) -> None:
        if self._socket is None:
            return
        answers = list(self._answers.values())
        self.close()
        for answer in answers:
            answer(b"", _gone(self._id, reason))
        if not self._closing:
            self._on_lost(reason)


def _connect(address: str, container_id: str) -> c_modules.socket:
    """Connects without blocking: connect() on a unix socket succeeds or fails at once."""
    try:
        sock = c_modules.stream()
    except OSError as error:
        raise _out_of_resources(container_id, error) from error
    sock.setblocking(False)
    try:
        if address.startswith("unix://"):
            _connect_path(sock, address.removeprefix("unix://"))
        else:
            sock.connect(b"\0" + address.encode())
    except OSError as error:
        sock.close()
        if advice(error):
            raise _out_of_resources(container_id, error) from error
        raise _gone(container_id, f"{address}: {error.strerror or error}") from error
    return sock


def _connect_path(sock: c_modules.socket, path: str) -> None:
    """Connects to a socket in a directory of any depth, see `frames.socket_path`."""
    directory, _, name = path.rpartition("/")
    descriptor = os.open(directory or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(frames.socket_path(descriptor, name))
    finally:
        os.close(descriptor)


def _out_of_resources(container_id: str, error: OSError) -> DriverError:
    return exhausted(
        f"cannot connect to the shim of container {container_id}",
        error,
        resolution="see the limits of the task's worker",
        code=Code.EXHAUSTED,
    )


def _gone(container_id: str, reason: str) -> DriverError:
    return DriverError(
        f"the shim of container {container_id} does not answer",
        details=reason,
        resolution="if the shim was killed, the task is reported as lost",
        recoverable=True,
        code=Code.UNAVAILABLE,
    )
