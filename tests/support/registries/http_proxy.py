"""A small HTTP proxy: CONNECT and plain requests, a password and TLS of its own if wanted."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import ssl
import threading
from urllib.parse import urlsplit

from tests.support.closing import Closing
from tests.support.registries.certificates import Certificate

Address = tuple[str, int]


class HttpProxy(Closing):
    """A proxy of a `with` block: `.host` is 127.0.0.1:PORT, `.asked` has each request's line.

    Args:
        account: the `user:password` that a client needs; empty accepts all clients.
        routes: addresses of names and ports that no name server knows.
        certificate: the certificate of a proxy that speaks TLS.
        refusal: the status line that answers every request.
    """

    def __init__(
        self,
        account: str = "",
        routes: dict[str, str] | None = None,
        certificate: Certificate | None = None,
        refusal: str = "",
    ) -> None:
        self._wanted = f"Basic {base64.b64encode(account.encode()).decode()}" if account else ""
        self._routes = routes or {}
        self._refusal = refusal
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate.file, certificate.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[str] = []
        self.heads: list[str] = []
        self._open: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []

    def enter(self) -> None:
        """See `Closing.enter`."""
        self._start(self._accept)

    def close(self) -> None:
        """See `Closing.close`."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                self._open.append(plain)
                self._start(self._serve, plain)

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client = plain
            if self._tls is not None:
                client = self._tls.wrap_socket(plain, server_side=True)
                self._open.append(client)
            self._answer(client)
            client.close()
        plain.close()

    def _answer(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(65536)
            if not data:
                return
            head += data
        head, _, body = head.partition(b"\r\n\r\n")
        line, _, headers = head.decode("latin-1").partition("\r\n")
        self.asked.append(line)
        self.heads.append(headers)
        if self._refusal:
            client.sendall(f"HTTP/1.1 {self._refusal}\r\nContent-Length: 0\r\n\r\n".encode())
        elif self._wanted and f"Proxy-Authorization: {self._wanted}".lower() not in headers.lower():
            client.sendall(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
            )
        else:
            method, target, _ = line.split(" ")
            tunnel = method == "CONNECT"
            name = target if tunnel else urlsplit(target).netloc
            with socket.create_connection(self._address(name), 5) as server:
                self._open.append(server)
                if tunnel:
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    path = target.partition(name)[2] or "/"
                    kept = [one for one in headers.split("\r\n") if not one.startswith("Proxy-")]
                    own = "\r\n".join([f"{method} {path} HTTP/1.1", *kept, "Connection: close"])
                    server.sendall(own.encode("latin-1") + b"\r\n\r\n" + body)
                _pump(client, server)

    def _address(self, name: str) -> Address:
        host, _, port = self._routes.get(name, name).rpartition(":")
        return host, int(port)


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Carries bytes both ways until either ends."""
    ends = {one: other, other: one}
    while True:
        held = [end for end in ends if isinstance(end, ssl.SSLSocket) and end.pending()]
        ready = held or select.select(list(ends), [], [])[0]
        for end in ready:
            data = end.recv(65536)
            if not data:
                return
            ends[end].sendall(data)
