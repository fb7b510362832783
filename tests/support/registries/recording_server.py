"""A web server that records every request; the test chooses the answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.closing import Closing
from tests.support.registries import ports


@dataclass(frozen=True, slots=True)
class Request:
    """One request; headers have lower-case names."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request.

    With `cut` the connection breaks after so many bytes of the body; before the break the server
    waits for `hangs`.
    """

    status: int = 404
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    hangs: threading.Event | None = None


def _listening(
    address: str, port: int, handler: type[BaseHTTPRequestHandler]
) -> ThreadingHTTPServer:
    """Listens on the port, or for port 0 on a port of `ports`."""

    def make() -> ThreadingHTTPServer:
        return ThreadingHTTPServer((address, port), handler)

    if port:
        return make()
    return ports.fresh(
        make, lambda server: int(server.server_address[1]), ThreadingHTTPServer.server_close
    )


class RecordingServer(Closing):
    """A server of a `with` block: `.host` is 127.0.0.1:PORT, `.requests` the list.

    Args:
        answer: returns the answer to a request.
        address: the address to listen on.
        port: 0 takes a port of `ports`.
    """

    def __init__(
        self, answer: Callable[[Request], Answer], address: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.requests: list[Request] = []
        recorded = self.requests

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(length)
                request = Request(self.command, self.path, headers, body)
                recorded.append(request)
                sent = answer(request)
                self.send_response_only(sent.status)
                if "Date" not in sent.headers:
                    self.send_header("Date", self.date_time_string())
                for name, value in sent.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(sent.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(sent.body[: sent.cut])
                if sent.hangs is not None:
                    sent.hangs.wait(60)
                self.close_connection = self.close_connection or sent.cut is not None

            do_POST = do_HEAD = do_GET  # noqa: N815 - the library's names

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self._server = _listening(address, port, Handler)
        self._server.daemon_threads = True
        self.host = f"{address}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def enter(self) -> None:
        """See `Closing.enter`."""
        self._thread.start()

    def close(self) -> None:
        """Ends the server; a second call does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def seen(self) -> str:
        """Returns all received bytes as text, to search in."""
        return "\n".join(f"{r.method} {r.path} {r.headers} {r.body!r}" for r in self.requests)
