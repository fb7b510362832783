"""Ending shims that containerd has forgotten, so that their container's name is free again."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

from actors.processes import child_process
from containerd.api import shims
from containerd.api.client import Containerd

_BUDGET_S = 5.0
_POLL_S = 0.02
_RUNTIME_S = 10.0
_RUNTIMES = Path("/run/containerd/runc")
"""Where shims have runc and crun keep their state, by containerd's namespace and container."""
_KEEPERS = {"state.json": "runc", "status": "crun"}
_log = logging.getLogger(__name__)


async def end(containerd: Containerd, container_id: str) -> None:
    """Returns when no shim of the container is left, none of their bundles and no runtime's state.

    To be asked for where containerd knows no task of the container. The death of its shim is what
    containerd still hears of, and it cleans up after it: the container's processes, its mounts, the
    bundle.
    """
    now = asyncio.get_running_loop().time
    deadline = now() + _BUDGET_S
    bundles: set[Path] = set()
    while True:
        found = await asyncio.to_thread(
            shims.find_processes, containerd.address, containerd.namespace, container_id
        )
        bundles |= {shim.bundle for shim in found if not shim.is_command}
        if not found and not any(bundle.exists() for bundle in bundles):
            break
        if now() > deadline:
            _log.warning("a forgotten shim's files stay", extra={"id": container_id})
            return
        for shim in found:
            if not shim.is_command:
                _log.info("containerd has forgotten this shim", extra={"id": container_id})
                shims.kill(shim)
        await asyncio.sleep(_POLL_S)
    await asyncio.to_thread(_forget_in_runtime, containerd.namespace, container_id)


def _forget_in_runtime(namespace: str, container_id: str) -> None:
    """Has the runtime delete what it holds of a container; without a shim nobody else does.

    containerd 1.4 does not where its client died in a Create, and the name is then taken for good.
    """
    root = _RUNTIMES / namespace
    path = child_process.BASE_ENVIRONMENT["PATH"]
    for file, name in _KEEPERS.items():
        if not (root / container_id / file).is_file():
            continue
        program = shutil.which(name, path=path)
        if program is not None:
            _log.info("the runtime is told to forget", extra={"id": container_id, "runtime": name})
            argv = [program, "--root", str(root), "delete", "--force", container_id]
            child_process.finish(child_process.start(argv), _RUNTIME_S)
