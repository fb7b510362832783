"""Control connections: where the plugin, or several of them, asks a worker and hears its events.

A connection is worth nothing to the task: it may end, babble or stop reading at any time, and that
costs that connection only.
"""

from __future__ import annotations

import os
import select
import struct
import time

from proto import frames
from proto.errors import Code, DriverError
from proto.exhaustion import advice
from workers import c_modules, protocol
from workers.loop import READ, WRITE, would_block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from proto.frames import Decoder, Frame
    from workers.loop import Loop, Timer

    Serve = Callable[["Connection", Frame], None]

MAX_UNSENT_BYTES = 1 << 20
"""A peer that lets more than this pile up does not read any more and is dropped."""

MAX_CONNECTIONS = 64

_BACKLOG = 512  # connect() does not wait when it is full, it fails with EAGAIN
_CHUNK_BYTES = 4096
_UCRED = struct.Struct("3i")
_STDIN, _STDOUT = 0, 1
_HEAR_MS = 100


class Connection:
    """One peer. `serve` gets its frames in order and must not raise anything but DriverError.

    A DriverError of `serve` means that the frame made no sense: the connection is closed.
    `gone` is called with it once it is closed, whoever closed it.
    """

    def __init__(
        self,
        loop: Loop,
        sock: c_modules.socket,
        decoder: Decoder,
        serve: Serve,
        gone: Callable[[Connection], None] | None = None,
    ) -> None:
        self.stats_timer: Timer | None = None
        self.knows_logs = False
        self._loop = loop
        self._socket: c_modules.socket | None = sock
        self._decoder = decoder
        self._serve = serve
        self._gone = gone
        self._out = bytearray()
        sock.setblocking(False)
        loop.watch(sock.fileno(), READ, self._on_ready)

    @property
    def closed(self) -> bool:
        """Returns whether the peer or we have ended it."""
        return self._socket is None

    def send(self, frame: Frame) -> None:
        """Sends, or keeps what the peer does not take now. Never blocks, never raises."""
        if self._socket is None:
            return
        self._out += frames.encode(frame)
        self._flush()
        if len(self._out) > MAX_UNSENT_BYTES:
            self.close()

    def answer(self, request: Frame, fields: Frame | None = None) -> None:
        """The good answer to a request."""
        self.send({"re": request["id"], "ok": True, **(fields or {})})

    def refuse(self, request: Frame, error: DriverError) -> None:
        """The bad answer to a request."""
        self.send({"re": request["id"], "ok": False, "error": error.to_wire()})

    def take(self, requests: Iterable[Frame]) -> None:
        """Serves frames that were decoded; closes at the first that makes no sense."""
        try:
            for frame in requests:
                self._serve(self, frame)
                if self._socket is None:
                    return
        except DriverError:
            self.close()

    def close(self) -> None:
        """Ends this connection; what was not sent is dropped."""
        if self.stats_timer is not None:
            self.stats_timer.cancel()
            self.stats_timer = None
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
            if self._gone is not None:
                self._gone(self)

    def _on_ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self._socket is None or not events & ~WRITE:
            return
        try:
            data = self._socket.recv(_CHUNK_BYTES)
        except OSError as error:
            if not would_block(error):
                self.close()
            return
        if not data:
            self.close()
            return
        self.take(self._decoder.feed(data))

    def _flush(self) -> None:
        if self._socket is None:
            return
        try:
            while self._out:
                del self._out[: self._socket.send(self._out)]
        except OSError as error:
            if not would_block(error):
                self.close()
                return
        self._loop.watch(self._socket.fileno(), READ | WRITE if self._out else READ, self._on_ready)


class Listener:
    """A listening unix socket and the connections made to it.

    Args:
        loop: whose descriptors they are.
        directory: descriptor of the directory that holds the socket, private to us.
        name: of the socket in it; one that is there already is a dead predecessor's.
        serve: gets the frames of every connection.
        alone: called when the last connection has closed.
    """

    def __init__(
        self,
        loop: Loop,
        directory: int,
        name: str,
        serve: Serve,
        alone: Callable[[], None] | None = None,
    ) -> None:
        self._loop = loop
        self._directory = directory
        self._name = name
        self._serve = serve
        self._alone = alone
        self._connections: list[Connection] = []
        self._socket = listen(directory, name)
        loop.watch(self._socket.fileno(), READ, self._on_ready)

    def adopt(self, sock: c_modules.socket, decoder: Decoder) -> Connection:
        """Serves a connection that was made elsewhere."""
        connection = Connection(self._loop, sock, decoder, self._serve, self._left)
        self._connections.append(connection)
        return connection

    def _left(self, connection: Connection) -> None:
        self._connections.remove(connection)
        if self._alone is None or self._connections:
            return
        self._on_ready(READ)  # one may have knocked already
        if not self._connections:
            self._alone()

    def broadcast(self, frame: Frame) -> None:
        """Sends an event to every peer."""
        for connection in self.connections():
            connection.send(frame)

    def connections(self) -> tuple[Connection, ...]:
        """Those that are open."""
        return tuple(self._connections)

    def close(self) -> None:
        """Takes no more connections; those that are there stay. The socket's name is freed."""
        self._alone = None
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        unlink(self._directory, self._name)

    def _on_ready(self, _: int) -> None:
        sock = accept(self._socket)
        if sock is None:
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            refuse(sock, _crowded())
            return
        self.adopt(sock, frames.Decoder())


def listen(directory: int, name: str) -> c_modules.socket:
    """A listening socket in a directory of any depth: sun_path holds only 108 bytes.

    Raises:
        OSError: it cannot be made.
    """
    sock = c_modules.stream()
    try:
        unlink(directory, name)
        sock.bind(frames.socket_path(directory, name))
        os.chmod(name, 0o600, dir_fd=directory)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def accept(listener: c_modules.socket) -> c_modules.socket | None:
    """The next connection, if its peer is root or who we are; None when there is none.

    The directory's mode says the same; this holds if somebody loosens it.
    """
    try:
        sock = c_modules.accept(listener)
    except OSError as error:
        if not would_block(error):
            turn_away(listener, error)
        return None
    credentials = sock.getsockopt(c_modules.SOL_SOCKET, c_modules.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(credentials)
    if uid in {0, os.geteuid()}:
        return sock
    sock.close()
    return None


def turn_away(listener: c_modules.socket, error: OSError) -> None:
    """Tells whoever waits that there is no descriptor for it: left there, the loop would spin.

    Standard input, /dev/null, is given up for it, and is standard output's again: to open it could
    fail. Where the whole machine has no open file left, nobody can be told; then it waits a moment.
    """
    os.close(_STDIN)
    try:
        refuse(c_modules.accept(listener), _short_of(error))
    except OSError as again:
        if advice(again) and not would_block(again):
            time.sleep(_HEAR_MS / 1000)
    finally:
        os.dup2(_STDOUT, _STDIN)


def refuse(sock: c_modules.socket, error: DriverError) -> None:
    """Tells a new peer why it is not served, when it has asked: before, its asking would fail."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.poll(_HEAR_MS)
    say_failed(sock, error)
    sock.close()


def say_failed(sock: c_modules.socket, error: DriverError) -> None:
    """Tells a peer why it is not served; it may have gone."""
    try:
        sock.setblocking(False)
        sock.send(frames.encode({"ok": False, "event": protocol.FAILED, "error": error.to_wire()}))
    except OSError:
        return


def _short_of(error: OSError) -> DriverError:
    return DriverError(
        f"process {os.getpid()} of the driver can take no more connections",
        details=error.strerror or str(error),
        resolution=advice(error),
        recoverable=True,
        code=Code.EXHAUSTED,
    )


def _crowded() -> DriverError:
    return DriverError(
        f"process {os.getpid()} of the driver can take no more connections",
        details=f"it has {MAX_CONNECTIONS}",
        resolution="close some: who asks for stats or recovers a task has one",
        recoverable=True,
        code=Code.EXHAUSTED,
    )


def unlink(directory: int, name: str) -> None:
    """Removes a name that may be gone already."""
    if os.access(name, os.F_OK, dir_fd=directory, follow_symlinks=False):
        os.unlink(name, dir_fd=directory)
