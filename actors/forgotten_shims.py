"""Ending shims that containerd has forgotten, so that their container's name is free again."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from containerd import shims
from containerd.client import Containerd

_BUDGET_S = 5.0
_POLL_S = 0.02
_log = logging.getLogger(__name__)


async def end(containerd: Containerd, container_id: str) -> None:
    """Returns when no shim of the container is left, and none of their bundles.

    To be asked for where containerd knows no task of the container. The death of its shim is what
    containerd still hears of, and it cleans up after it: the container's processes, its mounts, the
    bundle.
    """
    now = asyncio.get_running_loop().time
    deadline = now() + _BUDGET_S
    bundles: set[Path] = set()
    while True:
        found = await asyncio.to_thread(
            shims.find, containerd.address, containerd.namespace, container_id
        )
        bundles |= {shim.bundle for shim in found if not shim.errand}
        if not found and not any(bundle.exists() for bundle in bundles):
            return
        if now() > deadline:
            _log.warning("a forgotten shim's files stay", extra={"id": container_id})
            return
        for shim in found:
            if not shim.errand:
                _log.info("containerd has forgotten this shim", extra={"id": container_id})
                shims.kill(shim)
        await asyncio.sleep(_POLL_S)
