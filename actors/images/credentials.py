"""Selection of credentials for a pull, for each host: first the job's, then the operator's.

The order of sources for a host is: the task's auth, the Docker config file, the helper, the
driver's user and password, no credentials. This module binds all credentials to a host, and
`containerd.registry.auth` sends credentials to no other host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from actors.blocking import file_servers
from actors.images import credential_helper
from actors.images.docker_config import DockerConfig
from containerd.registry.credentials import Credentials, host_of, is_for, namespace_of

if TYPE_CHECKING:
    from actors.model.settings import Auth, DriverSettings

_HUB = "docker.io"


class CredentialSources:
    """Sources of the operator. Each pull reads the sources again, because passwords expire.

    Args:
        settings: the driver's settings.
        proxies: variables for the environment of helpers.
    """

    def __init__(self, settings: DriverSettings, proxies: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._proxies = proxies

    async def find(
        self, registry: str, hosts: Iterable[str], task_auth: Auth | None, repository: str = ""
    ) -> tuple[Credentials, ...]:
        """Selects the credentials for a registry and the registry's mirrors.

        Args:
            registry: registry of the image. A task's auth without a server is for this registry.
            hosts: hosts of registry and mirrors. A mirror's host may be followed by the path of
                the mirrored repository.
            task_auth: the task's auth.
            repository: repository of the image, without registry and tag.

        Returns:
            At most one entry for each host and path.

        Raises:
            DriverError: a source of the operator cannot be read.
        """
        home = host_of(registry)
        selected: list[Credentials] = []
        for host, path in dict.fromkeys((host_of(text), namespace_of(text)) for text in hosts):
            mirrored = f"{path}/{repository}".strip("/")
            credentials = _bound(task_auth, host, home)
            credentials = credentials or await self._operators(host, home, mirrored)
            if credentials is not None:
                address = f"{host}/{path}" if path else host
                selected.append(dataclasses.replace(credentials, server_address=address))
        return tuple(selected)

    async def _operators(self, host: str, home: str, repository: str) -> Credentials | None:
        settings = self._settings
        if settings.auth_config:
            credentials, helper = await file_servers.run_probed(
                lambda: _from_file(settings.auth_config, host, repository)
            )
            if credentials is None and helper:
                credentials = await credential_helper.ask(helper, host, self._proxies)
            if credentials is not None:
                return credentials
        # A helper knows registries by name, and knows no mirrors.
        if settings.auth_helper and host == home:
            credentials = await credential_helper.ask(settings.auth_helper, host, self._proxies)
            if credentials is not None:
                return credentials
        auth = settings.auth
        if auth is not None and not is_for(auth.server_address or _HUB, host, repository):
            return None
        return _bound(auth, host, _HUB)


def _from_file(path: str, host: str, repository: str) -> tuple[Credentials | None, str]:
    """Returns the credentials in a Docker config file, or the name of a helper."""
    file_servers.visit(path, "auth.config")
    config = DockerConfig(path)
    credentials = config.credentials(host, repository)
    return credentials, "" if credentials else config.helper(host)


def _bound(auth: Auth | None, host: str, default: str) -> Credentials | None:
    """Returns the credentials if `auth` is for the host; auth without a server is for `default`."""
    if auth is None or (host_of(auth.server_address) if auth.server_address else default) != host:
        return None
    return Credentials(username=auth.username, password=auth.password, server_address=host)
