"""Blobs of a pull that failed, kept for the next try of the start.

Only whole blobs are kept, under a lease of their own that containerd drops by itself when nobody
comes back for them. What was being written goes with the lease of the pull.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from actors.model import identifiers
from actors.model.ownership import LABEL_KEPT_FOR
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from containerd.api.client import Containerd

# As long as Nomad waits at most between two tries of a job by itself, reschedule's max_delay.
_KEPT_S = 3600.0
_MAY_END_BETTER = frozenset({Code.UNAVAILABLE, Code.TIMEOUT, Code.DENIED, Code.NOT_FOUND})
_log = logging.getLogger(__name__)


class KeptBlobs:
    """The leases on blobs of failed pulls, at most one for an image.

    Args:
        containerd: the client.
        labels: marks on the leases.
    """

    def __init__(self, containerd: Containerd, labels: Mapping[str, str]) -> None:
        self._containerd = containerd
        self._labels = labels

    async def keep(self, image: str, pull_lease: str, error: DriverError) -> None:
        """Holds what a failed pull has fetched, where another try may need it.

        Nothing of an image that is wrong is kept, and nothing where room ran out.
        """
        try:
            before = await self._of(image)
            if error.code in _MAY_END_BETTER:
                await self._hold(image, await self._containerd.leases.blobs(pull_lease))
            for lease in before:
                await self._containerd.leases.delete(lease)
        except DriverError as failed:
            _log.info("blobs of a failed pull are not kept", extra={"why": str(failed)})

    async def _hold(self, image: str, blobs: tuple[str, ...]) -> None:
        # The config comes first, and alone it is worth nothing.
        if len(blobs) <= 1:
            return
        lease = identifiers.pull_lease(secrets.randbits(64))
        labels = {**self._labels, LABEL_KEPT_FOR: _mark(image)}
        await self._containerd.leases.create(lease, expire_s=_KEPT_S, labels=labels)
        for digest in blobs:
            await self._containerd.leases.add_blob(lease, digest)

    async def drop(self, image: str) -> None:
        """Lets go of what was kept for an image."""
        with contextlib.suppress(DriverError):
            for lease in await self._of(image):
                await self._containerd.leases.delete(lease)

    async def _of(self, image: str) -> list[str]:
        condition = f'labels."{LABEL_KEPT_FOR}"=={_mark(image)}'
        return [lease.id for lease in await self._containerd.leases.list(condition)]


def _mark(image: str) -> str:
    """A name of any length and any characters as a label's value."""
    return hashlib.sha256(image.encode()).hexdigest()
