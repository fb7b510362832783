"""Getting in: Basic and Bearer challenges of a registry, and to whom credentials may go.

Credentials go to the registry they were given for and to the token server that it names, over TLS
or to this very machine, and nowhere else: an image name is the job author's, the password may be
the operator's.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from typing import TYPE_CHECKING, Protocol
from urllib.parse import SplitResult, urlencode, urlsplit

from containerd.registry.credentials import credentials_for, host_of, namespace_of
from containerd.registry.shown_text import message, shown
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.registry.credentials import Credentials

# One piece of WWW-Authenticate: name="value", name=value, or the scheme that opens a challenge.
_PIECE = re.compile(r'[\s,]*(?:([A-Za-z_-]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))|([A-Za-z0-9_-]+))')
_MAX_TOKEN_BYTES = 64 * 1024


def is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, is this machine by its very name; never resolved."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost":
            return True
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def web_address(url: str) -> SplitResult | None:
    """The parts of an http or https URL that every reader reads alike; None for another text."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    # Control characters and backslashes are what one parser drops and another one splits at.
    odd = "@" in parts.netloc or "\\" in parts.netloc or any(c < " " or c == "\x7f" for c in url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or odd:
        return None
    return parts


def same_place(url: str, other: str) -> bool:
    """Returns whether two URLs are of one host and port; each scheme's own port is one and none."""
    return _place(url) == _place(other)


def _place(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or 0
    except ValueError:
        return url, 0
    own = {"http": 80, "https": 443}.get(parts.scheme)
    return (parts.hostname or "").rstrip("."), 0 if port == own else port


def challenges(header: str) -> dict[str, dict[str, str]]:
    """The parameters of each challenge in a WWW-Authenticate header, by lower-case scheme."""
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    end = 0
    while piece := _PIECE.match(header, end):
        end = piece.end()
        name, quoted, plain, scheme = piece.groups()
        if scheme:
            current = found.setdefault(scheme.lower(), {})
        else:
            current.setdefault(name.lower(), quoted or plain or "")
    return found


def is_for(address: str, host: str, repository: str) -> bool:
    """Returns whether what an address names has a repository: the registry, or a namespace in it.

    A namespace ends at a slash or with the repository: team-a is no part of team-ab.
    """
    namespace = namespace_of(address)
    return host_of(address) == host and (
        not namespace or f"{repository}/".startswith(f"{namespace}/")
    )


class Fetch(Protocol):
    """Fetches (status, body) of a token server; POSTs the form where there is one."""

    def __call__(
        self, url: str, headers: dict[str, str], limit_bytes: int, form: str = "", /
    ) -> tuple[int, bytes]:
        """One request, without redirects."""
        ...


class Authorizer:
    """Makes the Authorization header for one registry. `get` fetches a token server's answer."""

    def __init__(
        self,
        registry: str,
        credentials: Credentials | None,
        get: Fetch,
    ) -> None:
        self._registry = registry
        self._credentials = credentials_for(registry, credentials)
        self._get = get
        self.header: str = ""

    def secrets(self) -> tuple[str, ...]:
        """Returns what must not be shown: the password in each form in which it is sent."""
        mine = self._credentials
        if mine is None:
            return ()
        return mine.password, mine.identity_token, _basic(mine).partition(" ")[2]

    def answer(self, challenge: str, scope: str, *, sent: str, over_tls: bool) -> bool:
        """Takes a WWW-Authenticate header; False when there is nothing (more) to try.

        Args:
            challenge: the header; a token is preferred to the password itself.
            scope: what to ask a token server for where the challenge names no scope.
            sent: the Authorization that was refused; another thread may have a better one by now.
            over_tls: whether the registry is spoken to over TLS.

        Raises:
            DriverError: the challenge asks for what must not be given.
        """
        offered = challenges(challenge)
        if "bearer" in offered:
            self.header = f"Bearer {self._token(offered['bearer'], scope, over_tls=over_tls)}"
        elif "basic" in offered and self._credentials is not None and self._credentials.password:
            self._only_in_private(over_tls=over_tls, to=self._registry)
            self.header = _basic(self._credentials)
        else:
            return False
        return self.header != sent

    def _token(self, parameters: dict[str, str], scope: str, *, over_tls: bool) -> str:
        realm = parameters.get("realm", "")
        parts = web_address(realm)
        if parts is None:
            raise DriverError(
                f"registry {self._registry} names a token server that is no URL",
                details=repr(shown(realm)),
                code=Code.DENIED,
            )
        if parts.scheme == "http" and not self._plain_is_fine(parts, over_tls=over_tls):
            raise DriverError(
                f"registry {self._registry} names a token server without TLS",
                details=repr(shown(realm)),
                resolution="the token server must use https",
                code=Code.DENIED,
            )
        scopes = (parameters.get("scope") or scope).split()
        service = {"service": parameters["service"]} if "service" in parameters else {}
        credentials = self._credentials
        if credentials is not None:
            # The token goes back to the registry, and is worth the password for a while.
            self._only_in_private(over_tls=over_tls, to=self._registry)
        if credentials is not None and credentials.identity_token:
            # Docker's and OAuth's refresh: the identity token goes in the body, never in a URL.
            form = {
                "grant_type": "refresh_token",
                "refresh_token": credentials.identity_token,
                "client_id": "nomad-driver-containerd",
                "scope": " ".join(scopes),
                **service,
            }
            status, body = self._get(realm, {}, _MAX_TOKEN_BYTES, urlencode(form))
            return self._read_token(status, body, parts.netloc)
        headers: dict[str, str] = {}
        if credentials is not None:
            headers["Authorization"] = _basic(credentials)
        # As the distribution specification says: one parameter for each scope.
        query = urlencode([*(("scope", one) for one in scopes), *service.items()])
        separator = "&" if parts.query else "?"
        status, body = self._get(f"{realm}{separator}{query}", headers, _MAX_TOKEN_BYTES)
        return self._read_token(status, body, parts.netloc)

    def _plain_is_fine(self, realm: SplitResult, *, over_tls: bool) -> bool:
        """Returns whether a token server may be asked in plain text.

        This machine's registries may point at each other. A registry that the operator made plain
        may have one at its own address (Harbor without TLS), as long as no password is at stake.
        """
        if is_loopback(realm.netloc):
            return is_loopback(self._registry)
        own = urlsplit(f"//{self._registry}").hostname == realm.hostname
        return own and not over_tls and self._credentials is None

    def _read_token(self, status: int, body: bytes, server: str) -> str:
        if status in {401, 403}:
            said = message(body)
            raise DriverError(
                "pull access denied, repository does not exist or may require authorization",
                details=f"token server {server} of {self._registry} answered {status}"
                f"{f': {said}' if said else ''}",
                resolution="check the auth block and the image's name",
                code=Code.DENIED,
            )
        try:
            fields = json.loads(body) if status == 200 else {}  # noqa: PLR2004
            token = fields.get("token") or fields.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        text = token if isinstance(token, str) else ""
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise DriverError(
                f"token server {server} of {self._registry} gave no token",
                details=f"status {status}",
                recoverable=status >= 500 or status == 429,  # noqa: PLR2004
                code=Code.UNAVAILABLE,
            )
        return text

    def _only_in_private(self, *, over_tls: bool, to: str) -> None:
        if not over_tls and not is_loopback(to):
            raise DriverError(
                f"registry {to} wants a password without TLS",
                resolution="use https for the registry",
                code=Code.DENIED,
            )


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"
