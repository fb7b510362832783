"""Holds credentials, and decides which registry may get which credentials."""

from __future__ import annotations

from dataclasses import field
from urllib.parse import urlsplit

from proto.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """User and password for a registry; an empty server_address means the image's registry.

    identity_token is a registry's refresh token, and replaces the password.
    """

    username: str
    password: str = field(repr=False)
    server_address: str = ""
    identity_token: str = field(default="", repr=False)


HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


def credentials_for(registry: str, credentials: Credentials | None) -> Credentials | None:
    """Returns the credentials if the registry may get them, else None."""
    if credentials is None or not credentials.server_address:
        return credentials
    return credentials if host_of(credentials.server_address) == host_of(registry) else None


def host_of(address: str) -> str:
    """Returns host and port of an address in any form, in lower case; empty for other texts.

    All names of Docker Hub become `docker.io`.
    """
    try:
        host = urlsplit(address if "//" in address else f"//{address}").netloc.lower()
    except ValueError:
        return ""
    return "docker.io" if host in HUB_NAMES else host


def namespace_of(address: str) -> str:
    """Returns the namespace in an address of any form; empty for a whole registry.

    A path with only an API's version, as in https://index.docker.io/v1/, is no namespace.
    """
    bare = address.rpartition("//")[2]
    path = bare.partition("/")[2].strip("/")
    return "" if path in {"v1", "v2"} else path


def is_for(address: str, host: str, repository: str) -> bool:
    """Returns True if an address of a registry, or of a registry's namespace, has a repository.

    A namespace ends at a slash or with the repository: team-a does not contain team-ab.

    Args:
        address: a registry's address in any form, perhaps with a namespace.
        host: the registry of the image.
        repository: the repository of the image.
    """
    namespace = namespace_of(address)
    return host_of(address) == host and (
        not namespace or f"{repository}/".startswith(f"{namespace}/")
    )
