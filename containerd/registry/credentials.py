"""Credentials of a registry, and the registries that each of them may be sent to."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """User and password, and the registry that they are for; empty: the image's own.

    identity_token is a registry's refresh token and stands for the password.
    """

    username: str
    password: str = field(repr=False)
    server_address: str = ""
    identity_token: str = field(default="", repr=False)


HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


def credentials_for(registry: str, credentials: Credentials | None) -> Credentials | None:
    """The credentials, if they were given for this registry."""
    if credentials is None or not credentials.server_address:
        return credentials
    return credentials if host_of(credentials.server_address) == host_of(registry) else None


def host_of(address: str) -> str:
    """The host and port that an address of any form names, in lower case; Docker Hub has one name.

    Empty for what is no address.
    """
    try:
        host = urlsplit(address if "//" in address else f"//{address}").netloc.lower()
    except ValueError:
        return ""
    return "docker.io" if host in HUB_NAMES else host


def namespace_of(address: str) -> str:
    """Returns the namespace below a registry that an address of any form names, mostly none.

    A path of nothing but an API's version, as in https://index.docker.io/v1/, is none.
    """
    bare = address.rpartition("//")[2]
    path = bare.partition("/")[2].strip("/")
    return "" if path in {"v1", "v2"} else path
