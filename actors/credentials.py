"""Which credentials a pull gets, and for which hosts: the job's, then the operator's.

For each host that may be asked: the task's auth, the Docker config file, the helper, the driver's
user and password, else none. Everything is bound to a host before it leaves this module, and
`containerd.registry_auth` gives it to no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from actors import credential_helper
from actors.docker_config import DockerConfig
from containerd.pull_wire import Credentials
from containerd.registry_auth import host_of

if TYPE_CHECKING:
    from actors.settings import Auth, DriverSettings

_HUB = "docker.io"


class CredentialSources:
    """The operator's sources; they are read anew for every pull, since passwords expire."""

    def __init__(self, settings: DriverSettings) -> None:
        self._settings = settings

    async def find(
        self, registry: str, hosts: Iterable[str], own: Auth | None
    ) -> tuple[Credentials, ...]:
        """Credentials for a registry and its mirrors, at most one per host.

        Args:
            registry: the image's; auth of the task that names no server is for it.
            hosts: everything that may be asked, the registry's own host among them.
            own: the task's auth.

        Raises:
            DriverError: a source of the operator cannot be read.
        """
        home = host_of(registry)
        found: list[Credentials] = []
        for host in dict.fromkeys(host_of(host) for host in hosts):
            one = _bound(own, host, home) or await self._operators(host, home)
            if one is not None:
                found.append(one)
        return tuple(found)

    async def _operators(self, host: str, home: str) -> Credentials | None:
        settings = self._settings
        if settings.auth_config:
            config = await asyncio.to_thread(DockerConfig, settings.auth_config)
            found = config.credentials(host)
            if found is None and (helper := config.helper(host)):
                found = await credential_helper.ask(helper, host, settings.proxies)
            if found is not None:
                return found
        # The helper knows registries by name; what mirrors them is none of its business.
        if settings.auth_helper and host == home:
            found = await credential_helper.ask(settings.auth_helper, host, settings.proxies)
            if found is not None:
                return found
        return _bound(settings.auth, host, _HUB)


def _bound(auth: Auth | None, host: str, default: str) -> Credentials | None:
    """The credentials, if they are for this host; without a server they are for the default."""
    if auth is None or (host_of(auth.server_address) if auth.server_address else default) != host:
        return None
    return Credentials(username=auth.username, password=auth.password, server_address=host)
