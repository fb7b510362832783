"""Makes HTTP requests to a registry and to its storage: proxies, TLS, time limits."""

from __future__ import annotations

import socket
import ssl
import time
import zlib
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import urllib3

from containerd.registry.addresses import same_server
from containerd.registry.errors import CHECK_REGISTRY, away, late, reason, refused, silent
from containerd.registry.hosts import Endpoint
from containerd.registry.proxies import Proxies, Proxy
from containerd.registry.retries import TRANSIENT
from containerd.registry.shown_text import shown
from containerd.registry.tls import context, of_proxy
from containerd.watchdog import waiting
from proto.errors import Code, DriverError
from proto.values import dataclass

CHUNK_BYTES = 1024 * 1024
"""Bytes that containerd gets in one message. With 256 KiB a pull costs more CPU on both sides."""

# Data that must arrive within `silence_s`: a kilobyte a second is slow, less counts as silence.
_PIECE_BYTES = 32 * 1024
_CONNECT_S = 10.0
_PROBE_S = 3.0
_ERROR_BYTES = 4096
_AGENT = "nomad-driver-containerd"
_GZIP = frozenset({"gzip", "x-gzip"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Time limits and proxies of a pull.

    deadline: a `time.monotonic()`.
    silence_s: seconds after which a server that sends almost nothing fails.
    """

    deadline: float
    silence_s: float
    proxies: Proxies


class Answer:
    """An answer with an unread body; `at_home` is True if the registry's own host sent it."""

    def __init__(self, raw: Any, url: str, proxy: Proxy | None) -> None:
        self.raw = raw
        self.url = url
        self.proxy = proxy
        self.status = int(raw.status)
        self.at_home = True

    def header(self, name: str) -> str:
        """Returns a header's text; empty for a missing header."""
        return str(self.raw.headers.get(name, ""))

    def close(self) -> None:
        """Closes the connection without reading the rest, because the rest may be endless."""
        self.raw.close()


class Transport:
    """The connections to an endpoint and its storage. Threads may share an instance.

    Args:
        name: the registry's name in errors.
        endpoint: the server.
        access: the pull's time limits and proxies.
    """

    def __init__(self, name: str, endpoint: Endpoint, access: Access) -> None:
        self._name = name
        self._endpoint = endpoint
        self._access = access
        self._pools: dict[tuple[str, bool, Proxy | None], urllib3.PoolManager] = {}
        self._answered = False
        self._no_tls = ""
        self._secrets: list[bytes] = []

    def hide(self, *secrets: str) -> None:
        """Removes texts from all later `error_body`: a server may repeat the request's secrets."""
        self._secrets += [secret.encode() for secret in secrets if secret]

    def request(
        self, url: str, headers: dict[str, str], *, method: str = "GET", form: str = ""
    ) -> Answer:
        """Makes a request, and returns the answer with an unread body. Follows no redirect.

        Args:
            url: an http or https URL.
            headers: headers beside User-Agent.
            method: the HTTP method.
            form: a URL-encoded body; empty for none.

        Raises:
            DriverError: code UNAVAILABLE or TIMEOUT; code INVALID for an unusable proxy.
        """
        left = self._access.deadline - time.monotonic()
        if left <= 0:
            raise late(self._name)
        timeout = urllib3.Timeout(
            connect=min(_CONNECT_S, left), read=min(self._access.silence_s, left)
        )
        proxy = self._access.proxies.of(url)
        if form:
            headers = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        pool = self._pool(url, proxy)
        try:
            with self._waiting(url):
                raw: Any = pool.request(
                    method,
                    url,
                    body=form.encode() if form else None,
                    headers={"User-Agent": _AGENT, **headers},
                    timeout=timeout,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                    enforce_content_length=True,
                )
        except urllib3.exceptions.HTTPError as error:
            raise self._away(url, error, proxy) from error
        self._answered = True
        return Answer(raw, url, proxy)

    def read(self, answer: Answer, most: int = _PIECE_BYTES) -> bytes:
        """Returns the next piece of a body; empty at the end.

        Raises:
            DriverError: code UNAVAILABLE or TIMEOUT.
        """
        if time.monotonic() >= self._access.deadline:
            raise late(self._name)
        try:
            with self._waiting(answer.url):
                data: bytes = answer.raw.read(most)
        # http.client raises ValueError for a chunk of negative length.
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise self._away(answer.url, error, answer.proxy) from error
        return data

    def read_limited(self, answer: Answer, limit_bytes: int) -> bytes:
        """Returns a whole body; unpacks a gzip that a proxy added.

        Raises:
            DriverError: see `read`; code CORRUPT if the body is longer than the limit.
        """
        body = bytearray()
        while len(body) <= limit_bytes and (chunk := self.read(answer)):
            body += chunk
        plain = bytes(body)
        if len(body) <= limit_bytes and answer.header("Content-Encoding").lower() in _GZIP:
            plain = _unpacked(plain, limit_bytes + 1)
        if len(plain) > limit_bytes:
            raise DriverError(
                f"registry {self._name} sent an answer that is too large",
                details=f"more than {limit_bytes} bytes",
                code=Code.CORRUPT,
            )
        return plain

    def error_body(self, answer: Answer) -> bytes:
        """Returns the beginning of an error's body; empty if the body cannot be read."""
        try:
            body = self.read(answer, _ERROR_BYTES)
        except DriverError:
            return b""
        for secret in self._secrets:
            body = body.replace(secret, b"***")
        return body

    def small(
        self, url: str, headers: dict[str, str], limit_bytes: int, form: str = ""
    ) -> tuple[int, bytes]:
        """Returns status and body of a token server's answer.

        Raises:
            DriverError: see `read_limited`; `Transient` if the server asks to retry later.
        """
        answer = self.request(url, headers, method="POST" if form else "GET", form=form)
        try:
            if answer.status in TRANSIENT:
                server = f"token server {urlsplit(url).netloc} of {self._name}"
                body = self.error_body(answer)
                raise refused(server, answer.status, answer.raw.headers, body, "a token")
            if answer.status != 200:  # noqa: PLR2004
                return answer.status, self.error_body(answer)
            return answer.status, self.read_limited(answer, limit_bytes)
        finally:
            answer.close()

    def speaks_tls(self) -> bool:
        """Returns True if a TLS handshake succeeds. The certificate is not checked, nor used."""
        parts = urlsplit(f"//{self._endpoint.host}")
        name = parts.hostname or ""
        tls = context(replace(self._endpoint, skip_verify=True, ca=()))
        try:
            with (
                self._waiting(f"https://{self._endpoint.host}"),
                socket.create_connection((name, parts.port or 443), _PROBE_S) as plain,
                tls.wrap_socket(plain, server_hostname=name),
            ):
                return True
        except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
            # A server with plain HTTP answers a handshake with text, or closes the connection.
            return False
        except (OSError, ValueError) as error:
            self._no_tls = f"https://{self._endpoint.host}: {reason(error)}"
            return False

    def _pool(self, url: str, proxy: Proxy | None) -> urllib3.PoolManager:
        """Returns the connections for a URL and a proxy.

        For the target of a redirect only the registry's CAs count: skip_verify and the client's
        certificate are for the registry itself.
        """
        scheme = urlsplit(url).scheme
        home = same_server(url, f"{scheme}://{self._endpoint.host}")
        pool = self._pools.get((scheme, home, proxy))
        if pool is None:
            elsewhere = Endpoint(host=self._endpoint.host, ca=self._endpoint.ca)
            # Reading the system's CAs takes milliseconds, and plain HTTP needs none.
            tls = context(self._endpoint if home else elsewhere) if scheme == "https" else None
            pool = self._pools.setdefault((scheme, home, proxy), _pool(tls, proxy))
        return pool

    def _waiting(self, url: str) -> AbstractContextManager[None]:
        brief = f"registry {self._name} does not answer, or sends almost nothing"
        return waiting(brief, shown(url), CHECK_REGISTRY)

    def _away(self, url: str, error: Exception, proxy: Proxy | None) -> DriverError:
        if time.monotonic() >= self._access.deadline:
            return late(self._name)
        if isinstance(error, urllib3.exceptions.ReadTimeoutError):
            return silent(self._name, url, self._access.silence_s, proxy)
        failure = away(self._name, url, error, proxy, comes_back=self._answered)
        if self._no_tls and not self._answered:
            failure.details = f"{self._no_tls}; {failure.details}"
        return failure


def _pool(tls: ssl.SSLContext | None, proxy: Proxy | None) -> urllib3.PoolManager:
    # urllib3 1.26 needs cert_reqs too, whatever the context says.
    verified = tls is None or tls.verify_mode is ssl.CERT_REQUIRED
    verify = "CERT_REQUIRED" if verified else "CERT_NONE"
    if proxy is None:
        return urllib3.PoolManager(ssl_context=tls, cert_reqs=verify, retries=False, maxsize=4)
    headers = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
    name = urlsplit(proxy.url).hostname or ""
    return urllib3.ProxyManager(
        proxy.url,
        proxy_headers=headers,
        proxy_ssl_context=of_proxy(name) if proxy.url.startswith("https:") else None,
        ssl_context=tls,
        cert_reqs=verify,
        retries=False,
        maxsize=4,
    )


def _unpacked(body: bytes, most: int) -> bytes:
    """Unpacks a gzip body, up to `most` bytes; returns another body unchanged."""
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(body, most)
    except zlib.error:
        return body
