"""Ends shims that containerd has forgotten or that give no answers, so that names become free."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

from actors.processes import child_process
from containerd.api import shims
from containerd.api.client import Containerd
from containerd.api.shims import ShimProcess, serves_others

_BUDGET_S = 5.0
_POLL_S = 0.02
_RUNTIME_S = 10.0
_RUNTIMES = Path("/run/containerd/runc")
"""Directory in which runc and crun keep their state, by containerd's namespace and container."""
_STATE_FILES = {"state.json": "runc", "status": "crun"}
_log = logging.getLogger(__name__)


async def end(containerd: Containerd, container_id: str, group: str = "") -> None:
    """Kills the shims of a container, and waits until bundles and runtime state are gone.

    Call only where containerd knows no task of the container, or gets no answer from the shim.
    containerd notices the death of the shim, and cleans up: the container's processes, mounts and
    bundle.

    A shim that also holds other containers stays. The shim that was started for a container can
    hold only others by now.

    Args:
        containerd: the client, with the container's namespace.
        container_id: the container.
        group: the id of the container whose shim the container shares; empty: none.
    """
    now = asyncio.get_running_loop().time
    deadline = now() + _BUDGET_S
    bundles: set[Path] = set()
    while True:
        leaked = await asyncio.to_thread(_find, containerd, container_id, group)
        bundles |= {shim.bundle for shim in leaked if not shim.is_command}
        if not leaked and not any(bundle.exists() for bundle in bundles):
            break
        if now() > deadline:
            _log.warning(
                "files of a leaked shim are left",
                extra={
                    "container_id": container_id,
                    "reason": f"shim or bundle still exists after {_BUDGET_S:g} s",
                },
            )
            return
        for shim in leaked:
            if not shim.is_command:
                _log.info("killing a leaked shim", extra={"container_id": container_id})
                shims.kill(shim)
        await asyncio.sleep(_POLL_S)
    await asyncio.to_thread(_delete_in_runtime, containerd.namespace, container_id)


def _find(containerd: Containerd, container_id: str, group: str) -> list[ShimProcess]:
    found = shims.find_processes(containerd.address, containerd.namespace, {container_id, group})
    return [
        shim
        for shim in found
        if (shim.id == container_id if shim.is_command else not serves_others(shim, container_id))
    ]


def _delete_in_runtime(namespace: str, container_id: str) -> None:
    """Deletes the runtime's state of a container, for which no shim is left.

    containerd 1.4 does not delete the state when a client died during a Create; the container's
    name would then stay in use for good.
    """
    root = _RUNTIMES / namespace
    path = child_process.BASE_ENVIRONMENT["PATH"]
    for file, name in _STATE_FILES.items():
        if not (root / container_id / file).is_file():
            continue
        program = shutil.which(name, path=path)
        if program is not None:
            _log.info(
                "deleting the runtime's state of a container",
                extra={"container_id": container_id, "runtime": name},
            )
            argv = [program, "--root", str(root), "delete", "--force", container_id]
            child_process.finish(child_process.start(argv), _RUNTIME_S)
