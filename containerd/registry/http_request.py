"""One HTTP request to a registry or to what it points at: proxies, TLS, time limits, one answer."""

from __future__ import annotations

import socket
import ssl
import time
import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import urllib3

from containerd.registry import shown_text
from containerd.registry.auth import same_place
from containerd.registry.errors import LOOK_AT_IT, away, late, reason, refused, silent
from containerd.registry.hosts import Endpoint
from containerd.registry.proxies import Proxies, Proxy
from containerd.registry.retries import TRANSIENT
from containerd.registry.tls import context, of_proxy
from containerd.watchdog import waiting
from proto.errors import Code, DriverError

CHUNK_BYTES = 256 * 1024
# What has to come within the time that nothing may come: a kilobyte a second is slow, less is none.
_PIECE_BYTES = 32 * 1024
_CONNECT_S = 10.0
_PROBE_S = 3.0
_ERROR_BYTES = 4096
_AGENT = "nomad-driver-containerd"
_GZIP = frozenset({"gzip", "x-gzip"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How one pull gets to its registries.

    deadline is a `time.monotonic()`; silence_s is how long each may send nothing.
    """

    deadline: float
    silence_s: float
    proxies: Proxies


class Answer:
    """An answer whose body has not been read yet. at_home: the registry's own host gave it."""

    def __init__(self, raw: Any, url: str, proxy: Proxy | None) -> None:
        self.raw = raw
        self.url = url
        self.proxy = proxy
        self.status = int(raw.status)
        self.at_home = True

    def header(self, name: str) -> str:
        """Returns a header's text, or nothing."""
        return str(self.raw.headers.get(name, ""))

    def close(self) -> None:
        """Closes rather than drains: what is left may be endless."""
        self.raw.close()


class Transport:
    """The connections of one place to read from. Threads may share it.

    Args:
        name: what errors call the registry.
        endpoint: where it is.
        access: how to get there.
    """

    def __init__(self, name: str, endpoint: Endpoint, access: Access) -> None:
        self._name = name
        self._endpoint = endpoint
        self._access = access
        self._pools: dict[tuple[bool, Proxy | None], urllib3.PoolManager] = {}
        self._answered = False
        self._no_tls = ""
        self._secrets: list[bytes] = []

    def hide(self, *secrets: str) -> None:
        """Keeps texts out of all words of servers: a server may repeat what it was sent."""
        self._secrets += [secret.encode() for secret in secrets if secret]

    def request(
        self, url: str, headers: dict[str, str], *, method: str = "GET", form: str = ""
    ) -> Answer:
        """Returns the head of one answer; redirects are the caller's.

        Raises:
            DriverError: UNAVAILABLE or TIMEOUT; INVALID for a proxy that cannot be used.
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
        """Returns the next piece of a body, empty at its end.

        Raises:
            DriverError: UNAVAILABLE or TIMEOUT.
        """
        if time.monotonic() >= self._access.deadline:
            raise late(self._name)
        try:
            with self._waiting(answer.url):
                data: bytes = answer.raw.read(most)
        # ValueError: http.client, for a chunk of negative length.
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise self._away(answer.url, error, answer.proxy) from error
        return data

    def read_limited(self, answer: Answer, limit_bytes: int) -> bytes:
        """Returns a body whole, without the gzip that something on the way put around it.

        Raises:
            DriverError: as `read`; CORRUPT when it is longer.
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

    def words(self, answer: Answer) -> bytes:
        """Returns the beginning of an error's body, or nothing where it cannot be read."""
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
            DriverError: as `read_limited`; `Transient` where the server asks to come back later.
        """
        answer = self.request(url, headers, method="POST" if form else "GET", form=form)
        try:
            if answer.status in TRANSIENT:
                who = f"token server {urlsplit(url).netloc} of {self._name}"
                body = self.words(answer)
                raise refused(who, answer.status, answer.raw.headers, body, "a token")
            if answer.status != 200:  # noqa: PLR2004
                return answer.status, self.words(answer)
            return answer.status, self.read_limited(answer, limit_bytes)
        finally:
            answer.close()

    def speaks_tls(self) -> bool:
        """Returns whether a handshake goes through, or fails for the certificate only."""
        parts = urlsplit(f"//{self._endpoint.host}")
        name = parts.hostname or ""
        tls = context(self._endpoint)
        try:
            with (
                self._waiting(f"https://{self._endpoint.host}"),
                socket.create_connection((name, parts.port or 443), _PROBE_S) as plain,
                tls.wrap_socket(plain, server_hostname=name),
            ):
                return True
        except ssl.SSLCertVerificationError:
            return True
        except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
            # Plain HTTP answers a handshake with words, or not at all.
            return False
        except (OSError, ValueError) as error:
            self._no_tls = f"https://{self._endpoint.host}: {reason(error)}"
            return False

    def _pool(self, url: str, proxy: Proxy | None) -> urllib3.PoolManager:
        """Returns the connections for a URL and a proxy.

        What the registry points at is checked with the registry's CAs, but neither skip_verify nor
        the client's certificate is for it.
        """
        home = same_place(url, f"{urlsplit(url).scheme}://{self._endpoint.host}")
        found = self._pools.get((home, proxy))
        if found is None:
            elsewhere = Endpoint(host=self._endpoint.host, ca=self._endpoint.ca)
            tls = context(self._endpoint if home else elsewhere)
            found = self._pools.setdefault((home, proxy), _pool(tls, proxy))
        return found

    def _waiting(self, url: str) -> AbstractContextManager[None]:
        brief = f"registry {self._name} does not answer, or sends next to nothing"
        return waiting(brief, shown_text.shown(url), LOOK_AT_IT)

    def _away(self, url: str, error: Exception, proxy: Proxy | None) -> DriverError:
        if time.monotonic() >= self._access.deadline:
            return late(self._name)
        if isinstance(error, urllib3.exceptions.ReadTimeoutError):
            return silent(self._name, url, self._access.silence_s, proxy)
        found = away(self._name, url, error, proxy, comes_back=self._answered)
        if self._no_tls and not self._answered:
            found.details = f"{self._no_tls}; {found.details}"
        return found


def _pool(tls: ssl.SSLContext, proxy: Proxy | None) -> urllib3.PoolManager:
    # urllib3 1.26 asks for both, whatever the context says.
    verify = "CERT_REQUIRED" if tls.verify_mode is ssl.CERT_REQUIRED else "CERT_NONE"
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
    """Returns what a body in gzip holds, at most so much; a body that is none as it is."""
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(body, most)
    except zlib.error:
        return body
