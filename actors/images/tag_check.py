"""Asks a registry for the digest of a tag, inside the plugin: an unchanged image needs no puller.

The code of the request is the puller's: hosts, TLS, proxies, tokens and errors are the same. The
check is a shortcut with little time and few threads. The puller decides where the check cannot.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from containerd import reference
from containerd.registry.credentials import Credentials
from containerd.registry.hosts import Endpoint
from proto.errors import Code, DriverError
from proto.values import dataclass

# A registry that needs longer is asked by a puller, whose watchdog reports the wait.
_CHECK_S = 2.0
# A thread that waits for a name server or for a slow registry cannot be ended.
_MOST_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAccess:
    """The operator's hosts for an image's registry, and the credentials for each host."""

    endpoints: tuple[Endpoint, ...] = ()
    credentials: tuple[Credentials, ...] = ()


class TagCheck:
    """Checks of tags, each with one HEAD request. Belongs to the event loop.

    Args:
        proxies: variables of the environment that name proxies.
    """

    def __init__(self, proxies: Mapping[str, str]) -> None:
        self._proxies = proxies
        self._threads: set[asyncio.Future[str]] = set()

    async def digest(self, image: str, access: RegistryAccess) -> str | None:
        """Returns the digest that the registry states for a tag.

        Args:
            image: the normalised reference.
            access: hosts and credentials.

        Returns:
            An empty text if the registry states no digest without a GET. None if no answer came
            in time, or if too many registries are silent already.

        Raises:
            DriverError: the registry is away, or busy.
        """
        if len(self._threads) >= _MOST_THREADS:
            return None
        asking = asyncio.ensure_future(asyncio.to_thread(self._ask, image, access))
        self._threads.add(asking)
        asking.add_done_callback(self._returned)
        # The thread of a cancelled start ends with the time of its check.
        await asyncio.wait([asking], timeout=_CHECK_S)
        if not asking.done():
            return None
        try:
            return asking.result()
        except DriverError as error:
            if error.code is Code.TIMEOUT:
                return None
            raise

    def _returned(self, asking: asyncio.Future[str]) -> None:
        self._threads.discard(asking)
        if not asking.cancelled():
            asking.exception()

    def _ask(self, image: str, access: RegistryAccess) -> str:
        # 4 MB of HTTP code, which a plugin without such images does not need.
        from containerd.pull.source import RegistrySource  # noqa: PLC0415
        from containerd.registry.http_request import Access  # noqa: PLC0415
        from containerd.registry.proxies import Proxies  # noqa: PLC0415
        from containerd.registry.retries import Retries  # noqa: PLC0415

        name = reference.parse(image)
        deadline = time.monotonic() + _CHECK_S
        source = RegistrySource(
            name,
            access.endpoints,
            access.credentials,
            Access(deadline=deadline, silence_s=_CHECK_S, proxies=Proxies(self._proxies)),
            Retries(deadline, _ignored, waits=False),
        )
        return source.digest(name.selector)


def _ignored(_: str) -> None:
    """Drops the report of a pause: the check makes none."""
