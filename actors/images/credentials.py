"""Which credentials a pull gets, and for which hosts: the job's, then the operator's.

For each host that may be asked: the task's auth, the Docker config file, the helper, the driver's
user and password, else none. Everything is bound to a host before it leaves this module, and
`containerd.registry.auth` gives it to no other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from actors.blocking import file_servers
from actors.images import credential_helper
from actors.images.docker_config import DockerConfig
from containerd.registry.auth import is_for
from containerd.registry.credentials import Credentials, host_of, namespace_of

if TYPE_CHECKING:
    from actors.model.settings import Auth, DriverSettings

_HUB = "docker.io"


class CredentialSources:
    """The operator's sources; they are read anew for every pull, since passwords expire.

    Args:
        settings: the driver's.
        proxies: variables for the environment of helpers.
    """

    def __init__(self, settings: DriverSettings, proxies: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._proxies = proxies

    async def find(
        self, registry: str, hosts: Iterable[str], own: Auth | None, repository: str = ""
    ) -> tuple[Credentials, ...]:
        """Credentials for a registry and its mirrors, at most one for each place.

        Args:
            registry: the image's; auth of the task that names no server is for it.
            hosts: everything that may be asked, the registry's own host among them; behind a
                mirror's may stand the path below which it has the repository.
            own: the task's auth.
            repository: the image's, without registry and tag.

        Raises:
            DriverError: a source of the operator cannot be read.
        """
        home = host_of(registry)
        found: list[Credentials] = []
        for host, path in dict.fromkeys((host_of(one), namespace_of(one)) for one in hosts):
            there = f"{path}/{repository}".strip("/")
            one = _bound(own, host, home) or await self._operators(host, home, there)
            if one is not None:
                place = f"{host}/{path}" if path else host
                found.append(dataclasses.replace(one, server_address=place))
        return tuple(found)

    async def _operators(self, host: str, home: str, repository: str) -> Credentials | None:
        settings = self._settings
        if settings.auth_config:
            found, helper = await file_servers.looked_at(
                lambda: _from_file(settings.auth_config, host, repository)
            )
            if found is None and helper:
                found = await credential_helper.ask(helper, host, self._proxies)
            if found is not None:
                return found
        # The helper knows registries by name; what mirrors them is none of its business.
        if settings.auth_helper and host == home:
            found = await credential_helper.ask(settings.auth_helper, host, self._proxies)
            if found is not None:
                return found
        auth = settings.auth
        if auth is not None and not is_for(auth.server_address or _HUB, host, repository):
            return None
        return _bound(auth, host, _HUB)


def _from_file(path: str, host: str, repository: str) -> tuple[Credentials | None, str]:
    """Returns what a Docker config file has: credentials, or the name of a helper."""
    file_servers.visit(path, "auth.config")
    config = DockerConfig(path)
    found = config.credentials(host, repository)
    return found, "" if found else config.helper(host)


def _bound(auth: Auth | None, host: str, default: str) -> Credentials | None:
    """The credentials, if they are for this host; without a server they are for the default."""
    if auth is None or (host_of(auth.server_address) if auth.server_address else default) != host:
        return None
    return Credentials(username=auth.username, password=auth.password, server_address=host)
