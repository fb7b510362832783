"""Reads from a registry over HTTP: whole manifests, and blobs as streams (OCI distribution, v2).

This module follows redirects, not the HTTP library: credentials stay with the registry, and no
redirect leads from TLS to plain text.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit

from containerd.image import manifests
from containerd.registry.addresses import is_loopback, same_server, web_address
from containerd.registry.auth import Authorizer
from containerd.registry.errors import (
    denied,
    denied_elsewhere,
    incomplete,
    proxy_account,
    refused,
    storage_refused,
    web_page,
)
from containerd.registry.hosts import HUB_HOST, Endpoint, endpoint_of
from containerd.registry.http_request import CHUNK_BYTES, Access, Answer, Transport
from containerd.registry.retries import TRANSIENT, Transient
from containerd.registry.shown_text import shown
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.reference import Reference
    from containerd.registry.credentials import Credentials

_MAX_REDIRECTS = 5
# `*/*` stands last: the registry sends an old schema or an artifact too, and the driver's own error
# names the type.
_ACCEPT = ", ".join([*sorted(manifests.INDEX_TYPES | manifests.MANIFEST_TYPES), "*/*"])
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PROXY_ACCOUNT = 407
_OK, _PARTIAL, _UNAUTHORIZED, _NOT_FOUND, _NO_SUCH_RANGE = 200, 206, 401, 404, 416
# A storage's answers to a signed URL that is too old, or signed by a clock that is wrong.
_STALE = frozenset({400, 401, 403, 404, 410})
_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19}|\*)", re.IGNORECASE)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class Registry:
    """A repository of a registry, read at a single endpoint. Threads may share an instance.

    Args:
        reference: the image.
        credentials: user and password, or None.
        access: the pull's time limits and proxies.
        endpoint: the host to read from; None for the registry itself.
    """

    def __init__(
        self,
        reference: Reference,
        credentials: Credentials | None,
        access: Access,
        endpoint: Endpoint | None = None,
    ) -> None:
        self._reference = reference
        self.endpoint = endpoint or endpoint_of(reference.registry)
        self._host = self.endpoint.host
        # Name in errors, and the name that credentials must be for.
        self.name = "docker.io" if self._host == HUB_HOST else self._host
        self._http = Transport(self.name, self.endpoint, access)
        self._scope = f"repository:{reference.repository}:pull"
        self._auth = Authorizer(self.name, credentials, self._http.small)
        self._http.hide(*self._auth.secrets(), *(value for _, value in self.endpoint.headers))
        self._scheme = self.endpoint.scheme

    def digest(self, selector: str) -> str:
        """Returns the digest in the answer to a HEAD request; empty without a digest.

        Registries that limit pulls do not count HEAD requests.

        Args:
            selector: a tag or a digest.

        Raises:
            DriverError: code UNAVAILABLE or TIMEOUT.
        """
        try:
            answer = self._open(f"manifests/{selector}", {"Accept": _ACCEPT}, method="HEAD")
        except Transient:
            return ""  # a proxy may cut HEAD requests; the GET that follows decides
        answer.close()
        if answer.status in TRANSIENT and answer.status < 500:  # noqa: PLR2004
            raise self._refused(answer, f"manifest {selector}")
        digest = answer.header("Docker-Content-Digest").strip()
        return digest if answer.status == _OK and _DIGEST.fullmatch(digest) else ""

    def manifest(self, selector: str) -> tuple[bytes, str]:
        """Returns a manifest or index, and the Content-Type header. Verifies a digest selector.

        Args:
            selector: a tag or a digest.

        Raises:
            DriverError: code DENIED, NOT_FOUND, CORRUPT or UNAVAILABLE.
        """
        answer = self._open_fresh(f"manifests/{selector}", {"Accept": _ACCEPT})
        try:
            if answer.status != _OK:
                raise self._refused(answer, f"manifest {selector}")
            body = self._http.read_limited(answer, manifests.DOCUMENT_LIMIT_BYTES)
            media_type = answer.header("Content-Type")
        finally:
            answer.close()
        if body.lstrip()[:1] == b"<":
            raise web_page(self.name, answer.url)
        if ":" in selector:
            verify(body, selector, self.name)
        return body, media_type

    def blob(self, digest: str, size: int, start: int = 0) -> Iterator[bytes]:
        """Yields the bytes of a blob from `start` to `size`. containerd checks the digest.

        Args:
            digest: the blob.
            size: bytes of the whole blob.
            start: bytes that the caller already has.

        Raises:
            DriverError: while iterating, after the bytes that arrived. Code CORRUPT; the blob has
                more or fewer bytes.
        """
        answer, at = self._open_blob(f"blobs/{digest}", digest, size, start)
        try:
            chunk, error, ended = bytearray(), None, False
            while not ended and error is None:
                try:
                    piece = self._http.read(answer)
                except DriverError as failed:
                    piece, error = b"", failed
                else:
                    ended = not piece
                # A server without ranges repeats the bytes before `start`: skipped.
                chunk += piece[max(0, start - at) :]
                at += len(piece)
                if at > size:
                    raise self._wrong_size(digest, f"more than the expected {size} bytes")
                if chunk and (ended or error or len(chunk) >= CHUNK_BYTES):
                    yield bytes(chunk)
                    chunk.clear()
        finally:
            answer.close()
        if error is not None and at < size:
            raise error
        if at != size:
            raise self._wrong_size(digest, f"{at} of {size} bytes", recoverable=True)

    def _open_blob(self, path: str, digest: str, size: int, start: int) -> tuple[Answer, int]:
        """Returns an answer with a blob's bytes, and the offset of the first byte: `start` or 0."""
        what = f"blob {digest}"
        if start:
            answer = self._open_fresh(path, {"Range": f"bytes={start}-"})
            if answer.status == _OK:
                return answer, 0
            if answer.status == _PARTIAL and _begins_at(answer, start, size):
                return answer, start
            if answer.status not in {_PARTIAL, _NO_SUCH_RANGE}:
                error = self._refused(answer, what)
                answer.close()
                raise error
            answer.close()
        answer = self._open_fresh(path, {})
        if answer.status != _OK:
            error = self._refused(answer, what)
            answer.close()
            raise error
        return answer, 0

    def _open_fresh(self, path: str, headers: dict[str, str]) -> Answer:
        """Opens a path, and once more if the storage refuses the registry's signed URL."""
        answer = self._open(path, headers)
        if answer.at_home or answer.status not in _STALE:
            return answer
        answer.close()
        return self._open(path, headers)

    def _open(self, path: str, headers: dict[str, str], *, method: str = "GET") -> Answer:
        url = f"{self._base()}/{self._reference.repository}/{path}"
        if self.endpoint.namespace:
            url = f"{url}?{urlencode({'ns': self.endpoint.namespace})}"
        body = b""
        for _ in range(3):
            sent = self._auth.header
            answer = self._follow(url, headers, sent, method)
            # Only the registry itself may ask for credentials; the target of a redirect may not.
            if answer.status != _UNAUTHORIZED or not answer.at_home:
                return answer
            challenge = answer.header("WWW-Authenticate")
            body = b"" if method == "HEAD" else self._http.error_body(answer)
            answer.close()
            tls = url.startswith("https:")
            if not self._auth.answer(challenge, self._scope, sent=sent, over_tls=tls):
                break
            self._http.hide(self._auth.header.partition(" ")[2])
        raise self._denied(_UNAUTHORIZED, body)

    def _follow(self, url: str, headers: dict[str, str], authorization: str, method: str) -> Answer:
        """Makes a request and follows redirects; Authorization goes only to the registry's host."""
        home = url
        for _ in range(_MAX_REDIRECTS + 1):
            at_home = same_server(url, home)
            sent = dict(headers)
            if at_home:
                sent.update(self.endpoint.headers)
            if authorization and at_home:
                sent["Authorization"] = authorization
            answer = self._http.request(url, sent, method=method)
            answer.at_home = at_home
            if answer.status not in _REDIRECTS:
                return answer
            location = answer.header("Location")
            answer.close()
            url = self._checked_redirect(url, location)
        raise DriverError(
            f"registry {self.name} redirects more than {_MAX_REDIRECTS} times",
            code=Code.UNAVAILABLE,
        )

    def _checked_redirect(self, url: str, location: str) -> str:
        try:
            target = urljoin(url, location)
        except ValueError:
            target = location
        parts = web_address(target)
        if not location:
            fault = "without a Location header"
        elif parts is None:
            fault = "to an invalid URL"
        elif parts.scheme == "http" and not self._stays_plain(url, parts):
            fault = "to plain text"
        else:
            return target
        raise DriverError(
            f"registry {self.name} redirects {fault}",
            details=repr(shown(target)),
            code=Code.DENIED,
        )

    def _stays_plain(self, url: str, target: SplitResult) -> bool:
        """Returns True if the pull may follow a redirect to plain text: no TLS was used before.

        Registries on this machine may redirect to each other. A registry that the operator set to
        plain HTTP may redirect to a storage, but not to this machine or to the cloud's metadata
        address.
        """
        if urlsplit(url).scheme != "http":
            return False
        if same_server(url, target.geturl()):
            return True
        if is_loopback(target.netloc):
            return is_loopback(self._host)
        return self.endpoint.scheme == "http" and not _is_link_local(target.hostname or "")

    def _base(self) -> str:
        """Returns the URL up to the repository: https, or http for this machine without TLS."""
        if not self._scheme:
            self._scheme = "https"
            if is_loopback(self._host) and not self._http.speaks_tls():
                self._scheme = "http"
        return f"{self._scheme}://{self._host}{self.endpoint.path}"

    def _refused(self, answer: Answer, what: str) -> DriverError:
        error = self._refusal(answer, what)
        # Through a TLS tunnel only the registry can answer; without TLS the proxy may have.
        if answer.proxy is not None and answer.url.startswith("http:"):
            if answer.status == _PROXY_ACCOUNT:
                return proxy_account(self.name, answer.url, answer.proxy)
            through = f"asked through proxy {answer.proxy.url}"
            error.details = f"{error.details}; {through}" if error.details else through
        return error

    def _refusal(self, answer: Answer, what: str) -> DriverError:
        status, headers = answer.status, answer.raw.headers
        body = self._http.error_body(answer)
        if answer.at_home and status == _NOT_FOUND and what.startswith("blob"):
            return incomplete(str(self._reference), self.name, what, body)
        if answer.at_home and status in {401, 403, 404}:
            return self._denied(status, body)
        asks = status == _UNAUTHORIZED and answer.header("WWW-Authenticate")
        if asks and not answer.at_home and what.startswith("manifest"):
            host = urlsplit(answer.url).netloc
            return denied_elsewhere(str(self._reference), self.name, host)
        if not answer.at_home and status in _STALE:
            return storage_refused(self.name, answer.url, status, headers, body)
        server = f"registry {self.name}"
        if not answer.at_home:
            server = f"the storage {urlsplit(answer.url).netloc} of {server}"
        return refused(server, status, headers, body, what)

    def _denied(self, status: int, body: bytes) -> DriverError:
        return denied(str(self._reference), self.name, status, body)

    def _wrong_size(self, digest: str, sizes: str, *, recoverable: bool = False) -> DriverError:
        return DriverError(
            f"registry {self.name} sent a wrong blob {digest}",
            details=sizes,
            recoverable=recoverable,
            code=Code.CORRUPT,
        )


def verify(body: bytes, digest: str, registry: str) -> None:
    """Checks the digest of a body.

    Args:
        body: the content.
        digest: the requested digest.
        registry: the sender, for errors.

    Raises:
        DriverError: code CORRUPT; the digests differ.
    """
    algorithm, _, wanted = digest.partition(":")
    if hashlib.new(algorithm, body).hexdigest() != wanted:
        raise DriverError(
            f"registry {registry} sent other content than {digest}",
            resolution="do not trust this registry or the servers on the way",
            code=Code.CORRUPT,
        )


def _begins_at(answer: Answer, start: int, size: int) -> bool:
    """Returns True if a partial answer begins at `start`, for a blob of the given size."""
    match = _RANGE.fullmatch(answer.header("Content-Range").strip())
    return match is not None and int(match[1]) == start and match[2] in {"*", str(size)}


def _is_link_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False
