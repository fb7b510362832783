"""Blobs of a failed pull, kept for the next attempt to start the task.

Only complete blobs are kept, under a separate lease with an expiry time. containerd removes
incomplete blobs with the lease of the pull.
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

# The longest pause of Nomad between two attempts: max_delay of the job's reschedule block.
_KEPT_S = 3600.0
_RETRIED_CODES = frozenset({Code.UNAVAILABLE, Code.TIMEOUT, Code.DENIED, Code.NOT_FOUND})
_log = logging.getLogger(__name__)


class KeptBlobs:
    """Leases on blobs of failed pulls, at most one lease for an image.

    Args:
        containerd: the client.
        labels: owner labels of the leases.
    """

    def __init__(self, containerd: Containerd, labels: Mapping[str, str]) -> None:
        self._containerd = containerd
        self._labels = labels

    async def keep(self, image: str, pull_lease: str, error: DriverError) -> None:
        """Keeps the complete blobs of a failed pull if a next attempt may succeed.

        Blobs of a wrong image are not kept, and no blobs are kept after exhaustion of space.

        Args:
            image: name of the image.
            pull_lease: lease of the failed pull.
            error: error of the failed pull.
        """
        try:
            earlier = await self._leases(image)
            if error.code in _RETRIED_CODES:
                await self._keep(image, await self._containerd.leases.blobs(pull_lease))
            for lease in earlier:
                await self._containerd.leases.delete(lease)
        except DriverError as failed:
            _log.info(
                "blobs of a failed pull not kept", extra={"image": image, "reason": str(failed)}
            )

    async def _keep(self, image: str, blobs: tuple[str, ...]) -> None:
        # The first blob is the config, which is useless alone.
        if len(blobs) <= 1:
            return
        lease = identifiers.pull_lease(secrets.randbits(64))
        labels = {**self._labels, LABEL_KEPT_FOR: _label(image)}
        await self._containerd.leases.create(lease, expire_s=_KEPT_S, labels=labels)
        for digest in blobs:
            await self._containerd.leases.add_blob(lease, digest)

    async def drop(self, image: str) -> None:
        """Releases the kept blobs of an image."""
        with contextlib.suppress(DriverError):
            for lease in await self._leases(image):
                await self._containerd.leases.delete(lease)

    async def _leases(self, image: str) -> list[str]:
        condition = f'labels."{LABEL_KEPT_FOR}"=={_label(image)}'
        return [lease.id for lease in await self._containerd.leases.list(condition)]


def _label(image: str) -> str:
    """Builds a label's value from a name of any length and any characters."""
    return hashlib.sha256(image.encode()).hexdigest()
