"""Reading from a registry over HTTP: manifests whole, blobs as streams (OCI distribution, v2).

Redirects are followed here and not by the HTTP library: credentials stay with the registry, and
nothing leads from TLS to plain text.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3

from containerd import images, registry_tls, stall
from containerd.registry_auth import Authorizer, is_loopback, web_address
from containerd.registry_hosts import HUB_HOST, Endpoint, endpoint_of
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.pull_wire import Credentials
    from containerd.reference import Reference

CHUNK_BYTES = 256 * 1024
# What has to come within the time that nothing may come: a kilobyte a second is slow, less is none.
_PIECE_BYTES = 32 * 1024
_CONNECT_S = 10.0
_LOOK_AT_IT = "look at the registry and the network"
# What urllib3 begins with: the connection as an object, and the number of the error.
_OBJECT = re.compile(r"^(<\S+ object at 0x\w+>|HTTPS?Connection\([^)]*\)): |\[Errno -?\d+\] ")
_PROBE_S = 3.0
_MAX_REDIRECTS = 5
_ACCEPT = ", ".join(sorted(images.INDEX_TYPES | images.MANIFEST_TYPES))
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429})
_SHOWN_BODY = 200
_AGENT = "nomad-driver-containerd"


class Registry:
    """One repository of one registry, read from one place. Threads may share it.

    Args:
        reference: the image.
        credentials: user and password, or None.
        deadline: `time.monotonic()` after which every request fails.
        silence_s: how long a registry may send nothing.
        endpoint: where to read; the registry itself where not given.
    """

    def __init__(
        self,
        reference: Reference,
        credentials: Credentials | None,
        deadline: float,
        silence_s: float,
        endpoint: Endpoint | None = None,
    ) -> None:
        self._read_s = silence_s
        self._reference = reference
        self.endpoint = endpoint or endpoint_of(reference.registry)
        self._host = self.endpoint.host
        # What errors call it, and what credentials are bound to.
        self.name = "docker.io" if self._host == HUB_HOST else self._host
        self._deadline = deadline
        self._scope = f"repository:{reference.repository}:pull"
        self._auth = Authorizer(self.name, credentials, self._get_small)
        self._scheme = self.endpoint.scheme
        self._no_tls = ""

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return registry_tls.context(self.endpoint)

    @cached_property
    def _home(self) -> urllib3.PoolManager:
        return _pool(self._tls)

    @cached_property
    def _elsewhere(self) -> urllib3.PoolManager:
        """For what the registry points at: its CAs, but neither skip_verify nor its certificate."""
        return _pool(registry_tls.context(Endpoint(host=self._host, ca=self.endpoint.ca)))

    def manifest(self, selector: str) -> tuple[bytes, str]:
        """A manifest or index and its media type; a digest selector is verified.

        Raises:
            DriverError: DENIED, NOT_FOUND, CORRUPT or UNAVAILABLE.
        """
        response = self._open(f"manifests/{selector}", {"Accept": _ACCEPT})
        try:
            if response.status != 200:  # noqa: PLR2004
                raise self._refused(response, f"manifest {selector}")
            body = self._read_limited(response, images.MANIFEST_LIMIT_BYTES)
            media_type = str(response.headers.get("Content-Type", "")).partition(";")[0].strip()
        finally:
            _release(response)
        if ":" in selector:
            verify(body, selector, self.name)
        return body, media_type or guess_type(body)

    def blob(self, digest: str, size: int) -> Iterator[bytes]:
        """The bytes of a blob, checked to be `size` of them; the digest is containerd's to check.

        Raises:
            DriverError: while iterating; CORRUPT when the registry sends more or less.
        """
        response = self._open(f"blobs/{digest}", {})
        sent = 0
        try:
            if response.status != 200:  # noqa: PLR2004
                raise self._refused(response, f"blob {digest}")
            while chunk := self._chunk(response):
                sent += len(chunk)
                if sent > size:
                    raise self._wrong_size(digest, f"more than the {size} bytes it should have")
                yield chunk
        finally:
            _release(response)
        if sent != size:
            raise self._wrong_size(digest, f"{sent} of {size} bytes", recoverable=True)

    def _chunk(self, response: Any) -> bytes:
        """As much as is worth a message to containerd, in pieces that show whether any come."""
        chunk = bytearray()
        while len(chunk) < CHUNK_BYTES and (piece := self._read(response)):
            chunk += piece
        return bytes(chunk)

    def _open(self, path: str, headers: dict[str, str]) -> Any:
        url = f"{self._base()}/{self._reference.repository}/{path}"
        if self.endpoint.namespace:
            url = f"{url}?{urlencode({'ns': self.endpoint.namespace})}"
        for _ in range(3):
            sent = self._auth.header
            response, at_home = self._follow(url, headers, sent)
            # Only the registry itself may ask for credentials, not what it redirects to.
            if response.status != 401 or not at_home:  # noqa: PLR2004
                return response
            challenge = str(response.headers.get("WWW-Authenticate", ""))
            _release(response)
            tls = url.startswith("https:")
            if not self._auth.answer(challenge, self._scope, sent=sent, over_tls=tls):
                break
        raise self._denied("401")

    def _follow(self, url: str, headers: dict[str, str], authorization: str) -> tuple[Any, bool]:
        """One GET through redirects, and whether the registry's own host gave the answer.

        Authorization goes to that host only.
        """
        home = urlsplit(url).netloc
        for _ in range(_MAX_REDIRECTS + 1):
            parts = urlsplit(url)
            at_home = parts.netloc == home
            sent = dict(headers)
            if at_home:
                sent.update(self.endpoint.headers)
            if authorization and at_home:
                sent["Authorization"] = authorization
            response = self._request(url, sent)
            if response.status not in _REDIRECTS:
                return response, at_home
            location = str(response.headers.get("Location", ""))
            _release(response)
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
        if parts is None:
            why = "to what is no URL"
        elif parts.scheme == "http" and not _stays_plain(url, parts.netloc):
            why = "to plain text"
        else:
            return target
        raise DriverError(
            f"registry {self.name} redirects {why}",
            details=repr(target[:200]),
            code=Code.DENIED,
        )

    def _base(self) -> str:
        """TLS everywhere; on this machine plain HTTP where TLS is not spoken."""
        if not self._scheme:
            self._scheme = "https"
            if is_loopback(self._host) and not self._speaks_tls():
                self._scheme = "http"
        return f"{self._scheme}://{self._host}{self.endpoint.path}"

    def _speaks_tls(self) -> bool:
        """Whether a handshake goes through, or fails for the certificate only."""
        parts = urlsplit(f"//{self._host}")
        name = parts.hostname or ""
        try:
            with (
                self._waiting(f"https://{self._host}"),
                socket.create_connection((name, parts.port or 443), _PROBE_S) as plain,
                self._tls.wrap_socket(plain, server_hostname=name),
            ):
                return True
        except ssl.SSLCertVerificationError:
            return True
        except (OSError, ValueError) as error:
            # Plain HTTP answers a handshake with words, with silence, or not at all.
            self._no_tls = f"https://{self._host}: {_OBJECT.sub('', str(error))}"
            return False

    def _request(self, url: str, headers: dict[str, str], form: str = "") -> Any:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._late()
        timeout = urllib3.Timeout(connect=min(_CONNECT_S, left), read=min(self._read_s, left))
        pool = self._home if urlsplit(url).netloc == self._host else self._elsewhere
        if form:
            headers = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        try:
            with self._waiting(url):
                response: Any = pool.request(
                    "POST" if form else "GET",
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
            raise self._away(url, error) from error
        response.asked_url = url  # urllib3's own is without the host
        return response

    def _read(self, response: Any) -> bytes:
        if time.monotonic() >= self._deadline:
            raise self._late()
        try:
            with self._waiting(response.asked_url):
                data: bytes = response.read(_PIECE_BYTES)
        # ValueError: http.client, for a chunk of negative length.
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise self._away(response.asked_url, error) from error
        return data

    def _waiting(self, url: str) -> AbstractContextManager[None]:
        brief = f"registry {self.name} does not answer, or sends next to nothing"
        return stall.over(brief, _shown(url), _LOOK_AT_IT)

    def _get_small(
        self, url: str, headers: dict[str, str], limit_bytes: int, form: str = ""
    ) -> tuple[int, bytes]:
        response = self._request(url, headers, form)
        try:
            return response.status, self._read_limited(response, limit_bytes)
        finally:
            _release(response)

    def _read_limited(self, response: Any, limit_bytes: int) -> bytes:
        body = bytearray()
        while chunk := self._read(response):
            body += chunk
            if len(body) > limit_bytes:
                raise DriverError(
                    f"registry {self.name} sent an answer that is too large",
                    details=f"more than {limit_bytes} bytes",
                    code=Code.CORRUPT,
                )
        return bytes(body)

    def _refused(self, response: Any, what: str) -> DriverError:
        status = int(response.status)
        if status in {401, 403, 404}:
            return self._denied(str(status), not_found=status == 404)  # noqa: PLR2004
        try:
            body = _printable(response.read(_SHOWN_BODY * 2))
        except (urllib3.exceptions.HTTPError, ValueError):
            body = ""
        return DriverError(
            f"registry {self.name} answered {status} for {what}",
            details=body,
            resolution="too many requests: try later" if status == 429 else "",  # noqa: PLR2004
            recoverable=status >= 500 or status in _TRANSIENT,  # noqa: PLR2004
            code=Code.UNAVAILABLE,
        )

    def _denied(self, status: str, *, not_found: bool = False) -> DriverError:
        return DriverError(
            "pull access denied, repository does not exist or may require authorization",
            details=f"{self._reference} at {self.name}, status {status}",
            resolution="check the image's name and tag, and the auth block",
            code=Code.NOT_FOUND if not_found else Code.DENIED,
        )

    def _late(self) -> DriverError:
        return DriverError(
            f"the pull from {self.name} did not end in time",
            resolution="raise image_pull_timeout, or look at the registry and the network",
            recoverable=True,
            code=Code.TIMEOUT,
        )

    def _away(self, url: str, error: Exception) -> DriverError:
        if time.monotonic() >= self._deadline:
            return self._late()
        reason = _OBJECT.sub("", str(getattr(error, "reason", None) or error))
        if isinstance(error, urllib3.exceptions.ReadTimeoutError):
            return DriverError(
                f"registry {self.name} does not answer",
                details=f"{_shown(url)}: nothing came for {self._read_s:g} s",
                resolution=_LOOK_AT_IT,
                recoverable=True,
                code=Code.TIMEOUT,
            )
        resolution = ""
        if "doesn't match" in reason:
            resolution = "its certificate is for another host: correct the name or the certificate"
        elif "has expired" in reason or "not yet valid" in reason:
            today = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            resolution = f"renew it, or set this machine's clock: it says {today}"
        elif "CERTIFICATE" in reason.upper():
            resolution = "its certificate is not trusted here: install its CA"
        tried = f"{self._no_tls}; " if self._no_tls else ""
        return DriverError(
            f"registry {self.name} cannot be read",
            details=f"{tried}{_shown(url)}: {_printable(reason.encode())}",
            resolution=resolution or _LOOK_AT_IT,
            recoverable=not resolution,
            code=Code.UNAVAILABLE,
        )

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


def _pool(tls: ssl.SSLContext) -> urllib3.PoolManager:
    # urllib3 1.26 asks for both, whatever the context says.
    return urllib3.PoolManager(
        ssl_context=tls,
        cert_reqs="CERT_REQUIRED" if tls.verify_mode is ssl.CERT_REQUIRED else "CERT_NONE",
        retries=False,
        maxsize=4,
    )


def _stays_plain(url: str, target: str) -> bool:
    """Whether a redirect to plain text at `target` gives nothing away: no TLS before, no new host.

    This machine's own registries may point at each other.
    """
    source = urlsplit(url)
    if source.scheme != "http":
        return False
    return source.netloc == target or (is_loopback(source.netloc) and is_loopback(target))


def _release(response: Any) -> None:
    """Closes rather than drains: what is left may be endless."""
    response.close()


def guess_type(body: bytes) -> str:
    """The media type of a document that nobody named."""
    return (
        "application/vnd.oci.image.index.v1+json"
        if b'"manifests"' in body
        else "application/vnd.oci.image.manifest.v1+json"
    )


def _shown(url: str) -> str:
    """What follows the question mark may be as good as a password."""
    return url.partition("?")[0]


def _printable(body: bytes) -> str:
    text = body.decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in text)[:_SHOWN_BODY].strip()
