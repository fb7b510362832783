"""Reading from a registry over HTTP: manifests whole, blobs as streams (OCI distribution, v2).

Redirects are followed here and not by the HTTP library: credentials stay with the registry, and
nothing leads from TLS to plain text.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit

from containerd.image import manifests
from containerd.registry.auth import Authorizer, is_loopback, same_place, web_address
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
# Anything, last: an old schema or an artifact is refused by its own name, not by the registry's.
_ACCEPT = ", ".join([*sorted(manifests.INDEX_TYPES | manifests.MANIFEST_TYPES), "*/*"])
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PROXY_ACCOUNT = 407
_OK, _PARTIAL, _UNAUTHORIZED, _NOT_FOUND, _NO_SUCH_RANGE = 200, 206, 401, 404, 416
# What storage answers to a signed URL that is too old, or that its clock does not like.
_STALE = frozenset({400, 401, 403, 404, 410})
_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19}|\*)", re.IGNORECASE)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class Registry:
    """One repository of one registry, read from one place. Threads may share it.

    Args:
        reference: the image.
        credentials: user and password, or None.
        access: the pull's time limits and proxies.
        endpoint: where to read; the registry itself where not given.
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
        # What errors call it, and what credentials are bound to.
        self.name = "docker.io" if self._host == HUB_HOST else self._host
        self._http = Transport(self.name, self.endpoint, access)
        self._scope = f"repository:{reference.repository}:pull"
        self._auth = Authorizer(self.name, credentials, self._http.small)
        self._http.hide(*self._auth.secrets(), *(value for _, value in self.endpoint.headers))
        self._scheme = self.endpoint.scheme

    def digest(self, selector: str) -> str:
        """Returns the digest that a HEAD request tells, or nothing where it tells none.

        A HEAD does not count where a registry counts pulls.

        Raises:
            DriverError: UNAVAILABLE or TIMEOUT.
        """
        try:
            answer = self._open(f"manifests/{selector}", {"Accept": _ACCEPT}, method="HEAD")
        except Transient:
            return ""  # something on the way may cut what it does not know; a GET tells
        answer.close()
        if answer.status in TRANSIENT and answer.status < 500:  # noqa: PLR2004
            raise self._refused(answer, f"manifest {selector}")
        found = answer.header("Docker-Content-Digest").strip()
        return found if answer.status == _OK and _DIGEST.fullmatch(found) else ""

    def manifest(self, selector: str) -> tuple[bytes, str]:
        """A manifest or index and its Content-Type as sent; a digest selector is verified.

        Raises:
            DriverError: DENIED, NOT_FOUND, CORRUPT or UNAVAILABLE.
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
        """The bytes of a blob from `start` to `size`; the digest is containerd's to check.

        Raises:
            DriverError: while iterating, after what came; CORRUPT for more or fewer bytes.
        """
        answer, at = self._opened_at(f"blobs/{digest}", digest, size, start)
        try:
            chunk, error, ended = bytearray(), None, False
            while not ended and error is None:
                try:
                    piece = self._http.read(answer)
                except DriverError as failed:
                    piece, error = b"", failed
                else:
                    ended = not piece
                # What a server repeats because it knows no ranges is not wanted.
                chunk += piece[max(0, start - at) :]
                at += len(piece)
                if at > size:
                    raise self._wrong_size(digest, f"more than the {size} bytes it should have")
                if chunk and (ended or error or len(chunk) >= CHUNK_BYTES):
                    yield bytes(chunk)
                    chunk.clear()
        finally:
            answer.close()
        if error is not None and at < size:
            raise error
        if at != size:
            raise self._wrong_size(digest, f"{at} of {size} bytes", recoverable=True)

    def _opened_at(self, path: str, digest: str, size: int, start: int) -> tuple[Answer, int]:
        """An answer with a blob's bytes, and the byte that it begins with: `start` or 0."""
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
        """Opens, once more where the storage finds the registry's signed URL no good."""
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
            # Only the registry itself may ask for credentials, not what it redirects to.
            if answer.status != _UNAUTHORIZED or not answer.at_home:
                return answer
            challenge = answer.header("WWW-Authenticate")
            body = b"" if method == "HEAD" else self._http.words(answer)
            answer.close()
            tls = url.startswith("https:")
            if not self._auth.answer(challenge, self._scope, sent=sent, over_tls=tls):
                break
            self._http.hide(self._auth.header.partition(" ")[2])
        raise self._denied(_UNAUTHORIZED, body)

    def _follow(self, url: str, headers: dict[str, str], authorization: str, method: str) -> Answer:
        """One request through redirects; Authorization goes to the registry's own host only."""
        home = url
        for _ in range(_MAX_REDIRECTS + 1):
            at_home = same_place(url, home)
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
            why = "to nowhere"
        elif parts is None:
            why = "to what is no URL"
        elif parts.scheme == "http" and not self._stays_plain(url, parts):
            why = "to plain text"
        else:
            return target
        raise DriverError(
            f"registry {self.name} redirects {why}",
            details=repr(shown(target)),
            code=Code.DENIED,
        )

    def _stays_plain(self, url: str, target: SplitResult) -> bool:
        """Whether a redirect to plain text gives nothing away: no TLS before, no place of its own.

        This machine's own registries may point at each other. A registry that the operator made
        plain may point at its storage, and neither at this machine nor at its cloud's metadata.
        """
        if urlsplit(url).scheme != "http":
            return False
        if same_place(url, target.geturl()):
            return True
        if is_loopback(target.netloc):
            return is_loopback(self._host)
        return self.endpoint.scheme == "http" and not _is_link_local(target.hostname or "")

    def _base(self) -> str:
        """TLS everywhere; on this machine plain HTTP where TLS is not spoken."""
        if not self._scheme:
            self._scheme = "https"
            if is_loopback(self._host) and not self._http.speaks_tls():
                self._scheme = "http"
        return f"{self._scheme}://{self._host}{self.endpoint.path}"

    def _refused(self, answer: Answer, what: str) -> DriverError:
        error = self._refusal(answer, what)
        # In a tunnel the registry itself has spoken; without TLS it may have been the proxy.
        if answer.proxy is not None and answer.url.startswith("http:"):
            if answer.status == _PROXY_ACCOUNT:
                return proxy_account(self.name, answer.url, answer.proxy)
            words = f"asked through proxy {answer.proxy.url}"
            error.details = f"{error.details}; {words}" if error.details else words
        return error

    def _refusal(self, answer: Answer, what: str) -> DriverError:
        status, headers = answer.status, answer.raw.headers
        body = self._http.words(answer)
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
        who = f"registry {self.name}"
        if not answer.at_home:
            who = f"the storage {urlsplit(answer.url).netloc} of {who}"
        return refused(who, status, headers, body, what)

    def _denied(self, status: int, body: bytes) -> DriverError:
        return denied(str(self._reference), self.name, status, body)

    def _wrong_size(self, digest: str, why: str, *, recoverable: bool = False) -> DriverError:
        return DriverError(
            f"registry {self.name} sent a wrong blob {digest}",
            details=why,
            recoverable=recoverable,
            code=Code.CORRUPT,
        )


def verify(body: bytes, digest: str, registry: str) -> None:
    """Checks that a body has the digest it was asked for by.

    Raises:
        DriverError: code CORRUPT.
    """
    algorithm, _, wanted = digest.partition(":")
    if hashlib.new(algorithm, body).hexdigest() != wanted:
        raise DriverError(
            f"registry {registry} sent other content than {digest}",
            resolution="do not trust this registry or what lies between",
            code=Code.CORRUPT,
        )


def _begins_at(answer: Answer, start: int, size: int) -> bool:
    """Returns whether a partial answer begins at the wanted byte of a blob of this size."""
    found = _RANGE.fullmatch(answer.header("Content-Range").strip())
    return found is not None and int(found[1]) == start and found[2] in {"*", str(size)}


def _is_link_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False
