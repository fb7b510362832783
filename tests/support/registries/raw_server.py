"""A server that answers in bytes, for answers that no web server sends."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable

from tests.support.closing import Closing
from tests.support.registries import ports

Reply = Callable[[str], Iterable[bytes]]


class RawServer(Closing):
    """A server of a `with` block: `.host` is 127.0.0.1:PORT, with a port of `ports`.

    Args:
        reply: returns the bytes for a request's path; the server then closes the connection.
    """

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._listener = ports.listener()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = 0
        self.paths: list[str] = []

    def enter(self) -> None:
        """See `Closing.enter`."""
        self._start(self._accept)

    def close(self) -> None:
        """See `Closing.close`."""
        self._ended.set()
        for connection in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join()

    def pause(self, seconds: float) -> None:
        """Waits between two pieces, at most for the life of the server."""
        self._ended.wait(seconds)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.add(connection)
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                data = connection.recv(4096)
                # A TLS handshake is answered with nothing, as a plain server's surprise would be.
                if not data or not (head or data).startswith((b"GET ", b"POST ")):
                    break
                head += data
            else:
                path = head.split(b" ")[1].decode(errors="replace")
                self.paths.append(path)
                for piece in self._reply(path):
                    if self._ended.is_set():
                        break
                    connection.sendall(piece)
                    self.sent += len(piece)
        self._open.discard(connection)
        connection.close()
