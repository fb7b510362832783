"""Control connections, by which plugins send requests to a worker and receive events.

The task does not depend on any connection. A peer that disconnects, sends nonsense or stops reading
loses the own connection and nothing else.
"""

from __future__ import annotations

import os
import select
import struct
import time

from proto import frames
from proto.errors import Code, DriverError
from proto.exhaustion import advice, exhausted
from workers import c_modules, protocol
from workers.loop import READ, WRITE, would_block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from proto.frames import Decoder, Frame
    from workers.loop import Loop, Timer
    from workers.protocol import ExitRecord

    Serve = Callable[["Connection", Frame], None]

MAX_UNSENT_BYTES = 1 << 20
"""Limit of unsent bytes. A peer beyond the limit has stopped reading and is disconnected."""

MAX_CONNECTIONS = 64

_BACKLOG = 512  # connect() to a full backlog does not wait, but fails with EAGAIN
_CHUNK_BYTES = 4096
_NO_MORE = "process {} of the driver can take no more connections"
_UCRED = struct.Struct("3i")
_STDIN, _STDOUT = 0, 1
_REQUEST_MS = 100


class Connection:
    """A connection to a peer.

    Args:
        loop: the worker's loop.
        sock: the connected socket.
        decoder: decoder of the connection, which may already hold bytes.
        serve: called with each frame in order. May raise only DriverError, for an invalid frame:
            the connection is then closed.
        gone: called with the connection after the close by either side.
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
        """Returns whether either side has closed the connection."""
        return self._socket is None

    def send(self, frame: Frame) -> None:
        """Sends a frame, and keeps bytes that the peer cannot take yet. Never blocks or raises."""
        if self._socket is None:
            return
        self._out += frames.encode(frame)
        self._flush()
        if len(self._out) > MAX_UNSENT_BYTES:
            self.close()

    def answer(self, request: Frame, fields: Frame | None = None) -> None:
        """Answers a request that succeeded."""
        self.send({"re": request["id"], "ok": True, **(fields or {})})

    def refuse(self, request: Frame, error: DriverError) -> None:
        """Answers a request that failed."""
        self.send({"re": request["id"], "ok": False, "error": error.to_wire()})

    def take(self, requests: Iterable[Frame]) -> None:
        """Serves decoded frames; closes the connection at the first invalid frame."""
        try:
            for frame in requests:
                self._serve(self, frame)
                if self._socket is None:
                    return
        except DriverError:
            self.close()

    def close(self) -> None:
        """Closes the connection; unsent bytes are dropped."""
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
    """A listening unix socket and the connections to the socket.

    Args:
        loop: the worker's loop.
        directory: descriptor of the private directory that holds the socket.
        name: name of the socket in the directory; an existing socket of a dead worker is replaced.
        serve: called with the frames of every connection.
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
        """Serves a connection that was accepted elsewhere."""
        connection = Connection(self._loop, sock, decoder, self._serve, self._left)
        self._connections.append(connection)
        return connection

    def _left(self, connection: Connection) -> None:
        self._connections.remove(connection)
        if self._alone is None or self._connections:
            return
        self._on_ready(READ)  # the next connection may wait already
        if not self._connections:
            self._alone()

    def broadcast(self, frame: Frame) -> None:
        """Sends an event to every peer."""
        for connection in self.connections():
            connection.send(frame)

    def connections(self) -> tuple[Connection, ...]:
        """Returns the open connections."""
        return tuple(self._connections)

    def close(self) -> None:
        """Accepts no more connections and removes the socket's name. Open connections stay."""
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
    """Creates a listening socket in a directory of any depth.

    Raises:
        OSError: the socket cannot be created.
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
    """Accepts the next connection; None without one, and for a peer of another user.

    The peer must be root or the user of this process. The directory's mode has the same effect;
    the check also holds after a change of the mode.
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
    """Accepts the waiting connection and refuses the peer, because no descriptor is left.

    A connection left waiting would keep the loop spinning. The function closes standard input,
    /dev/null, to have a descriptor, and restores standard input from standard output: opening
    /dev/null again could fail. If the whole machine has no open file left, no peer can be answered,
    and the function waits a moment.
    """
    os.close(_STDIN)
    try:
        refuse(c_modules.accept(listener), _out_of_resources(error))
    except OSError as again:
        if advice(again) and not would_block(again):
            time.sleep(_REQUEST_MS / 1000)
    finally:
        os.dup2(_STDOUT, _STDIN)


def refuse(sock: c_modules.socket, error: DriverError) -> None:
    """Waits for the peer's first request, then answers with `error` and closes.

    An earlier answer would make the peer's write fail.
    """
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.poll(_REQUEST_MS)
    send_failed(sock, error)
    sock.close()


def send_failed(sock: c_modules.socket, error: DriverError) -> None:
    """Sends a peer the reason of a refusal; the peer may be gone."""
    try:
        sock.setblocking(False)
        sock.send(frames.encode({"ok": False, "event": protocol.FAILED, "error": error.to_wire()}))
    except OSError:
        return


def exit_event(record: ExitRecord) -> Frame:
    """Returns the event of the task's end."""
    return {"event": protocol.EXIT, **record.to_wire()}


def drained_event(*, complete: bool) -> Frame:
    """Returns the event of the end of the logs."""
    return {"event": protocol.DRAINED, "complete": complete}


def _out_of_resources(error: OSError) -> DriverError:
    return exhausted(_NO_MORE.format(os.getpid()), error, code=Code.EXHAUSTED)


def _crowded() -> DriverError:
    return DriverError(
        _NO_MORE.format(os.getpid()),
        details=f"{MAX_CONNECTIONS} connections are open",
        resolution="close some: each stats request and each recovered task has a connection",
        recoverable=True,
        code=Code.EXHAUSTED,
    )


def unlink(directory: int, name: str) -> None:
    """Removes a name, which may be gone already."""
    if os.access(name, os.F_OK, dir_fd=directory, follow_symlinks=False):
        os.unlink(name, dir_fd=directory)
