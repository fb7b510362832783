"""Answers Basic and Bearer challenges of a registry, and decides where credentials may go.

Credentials go only to their own registry and to the token server that the registry names, over TLS
or to this machine itself. The job's author chooses the image's name, and the password may be the
operator's.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Protocol
from urllib.parse import SplitResult, urlencode, urlsplit

from containerd.registry.addresses import is_loopback, web_address
from containerd.registry.credentials import credentials_for
from containerd.registry.errors import token_denied
from containerd.registry.shown_text import shown
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.registry.credentials import Credentials

# A piece of WWW-Authenticate: name="value", name=value, or the scheme at a challenge's beginning.
_PIECE = re.compile(r'[\s,]*(?:([A-Za-z_-]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))|([A-Za-z0-9_-]+))')
_MAX_TOKEN_BYTES = 64 * 1024


def _challenges(header: str) -> dict[str, dict[str, str]]:
    """Parses a WWW-Authenticate header: parameters of each challenge, by lower-case scheme."""
    challenges: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    end = 0
    while piece := _PIECE.match(header, end):
        end = piece.end()
        name, quoted, plain, scheme = piece.groups()
        if scheme:
            current = challenges.setdefault(scheme.lower(), {})
        else:
            current.setdefault(name.lower(), quoted or plain or "")
    return challenges


class Fetch(Protocol):
    """Function which fetches (status, body) from a token server; POSTs a form if given."""

    def __call__(
        self, url: str, headers: dict[str, str], limit_bytes: int, form: str = "", /
    ) -> tuple[int, bytes]:
        """Makes a request without following redirects."""
        ...


class Authorizer:
    """Source of a registry's Authorization header.

    Args:
        registry: the registry's name.
        credentials: credentials of any registry; used only for their own registry.
        get: fetches a token server's answer.
    """

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
        """Returns texts to hide in errors: the password, in each form that is sent."""
        own = self._credentials
        if own is None:
            return ()
        return own.password, own.identity_token, _basic(own).partition(" ")[2]

    def answer(self, challenge: str, scope: str, *, sent: str, over_tls: bool) -> bool:
        """Answers a challenge by a new `header`. Returns False if no other header is possible.

        Args:
            challenge: the WWW-Authenticate header; a token is preferred to the password itself.
            scope: the scope for the token server, if the challenge names none.
            sent: the refused Authorization; another thread may have set a new header meanwhile.
            over_tls: True if the connection to the registry uses TLS.

        Raises:
            DriverError: code DENIED; credentials would be sent to a wrong server or without TLS.
        """
        offered = _challenges(challenge)
        if "bearer" in offered:
            self.header = f"Bearer {self._token(offered['bearer'], scope, over_tls=over_tls)}"
        elif "basic" in offered and self._credentials is not None and self._credentials.password:
            self._check_private(over_tls=over_tls, to=self._registry)
            self.header = _basic(self._credentials)
        else:
            return False
        return self.header != sent

    def _token(self, parameters: dict[str, str], scope: str, *, over_tls: bool) -> str:
        realm = parameters.get("realm", "")
        parts = web_address(realm)
        if parts is None:
            raise DriverError(
                f"registry {self._registry} names a token server without a valid URL",
                details=repr(shown(realm)),
                code=Code.DENIED,
            )
        if parts.scheme == "http" and not self._may_be_plain(parts, over_tls=over_tls):
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
            # The token goes back to the registry, and gives the password's rights for a while.
            self._check_private(over_tls=over_tls, to=self._registry)
        if credentials is not None and credentials.identity_token:
            # Refresh as in Docker and OAuth: the identity token goes in the body, never in a URL.
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
        # The distribution specification wants a parameter for each scope.
        query = urlencode([*(("scope", name) for name in scopes), *service.items()])
        separator = "&" if parts.query else "?"
        status, body = self._get(f"{realm}{separator}{query}", headers, _MAX_TOKEN_BYTES)
        return self._read_token(status, body, parts.netloc)

    def _may_be_plain(self, realm: SplitResult, *, over_tls: bool) -> bool:
        """Returns True if the driver may ask a token server in plain text.

        Registries on this machine may name each other. A registry without TLS may name a token
        server at the registry's own address (Harbor without TLS), if no password is sent.
        """
        if is_loopback(realm.netloc):
            return is_loopback(self._registry)
        same_host = urlsplit(f"//{self._registry}").hostname == realm.hostname
        return same_host and not over_tls and self._credentials is None

    def _read_token(self, status: int, body: bytes, server: str) -> str:
        if status in {401, 403}:
            raise token_denied(self._registry, server, status, body)
        try:
            fields = json.loads(body) if status == 200 else {}  # noqa: PLR2004
            token = fields.get("token") or fields.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        text = token if isinstance(token, str) else ""
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise DriverError(
                f"token server {server} of {self._registry} sent no token",
                details=f"status {status}",
                recoverable=status >= 500 or status == 429,  # noqa: PLR2004
                code=Code.UNAVAILABLE,
            )
        return text

    def _check_private(self, *, over_tls: bool, to: str) -> None:
        if not over_tls and not is_loopback(to):
            raise DriverError(
                f"registry {to} asks for a password without TLS",
                resolution="use https for the registry",
                code=Code.DENIED,
            )


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"
