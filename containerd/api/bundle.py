"""Finding a shim's socket in the files that containerd leaves in the task's bundle.

containerd 1.x writes `address` there; 2.x writes `bootstrap.json` with version 2 or 3.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from containerd.api.records import ShimAddress

_TASKS = "io.containerd.runtime.v2.task"
_LIMIT_BYTES = 4096


def find_shim(
    containerd_address: str, namespace: str, container_id: str, pid: int
) -> ShimAddress | None:
    """The address of the shim of a task.

    Args:
        containerd_address: containerd's socket; its state directory is usually beside it.
        namespace: containerd's namespace.
        container_id: the container.
        pid: the task's process, a child of the shim, whose working directory is the bundle.
    """
    for directory in _bundles(containerd_address, namespace, container_id, pid):
        found = _read(directory)
        if found is not None:
            return found
    return None


def _bundles(address: str, namespace: str, container_id: str, pid: int) -> Iterator[Path]:
    beside = Path(address).parent
    for state in (beside, beside / "state", Path("/run/containerd")):
        yield state / _TASKS / namespace / container_id
    try:
        # Fields after the command's closing bracket: state, parent's pid, …
        stat = Path(f"/proc/{pid}/stat").read_text()
        parent = stat.rpartition(")")[2].split()[1]
        bundle = Path(f"/proc/{parent}/cwd").readlink()
    except (OSError, IndexError):
        return
    # A shim of several containers sits in the bundle of its first one.
    if bundle.parent.parts[-2:] == (_TASKS, namespace):
        yield bundle.parent / container_id


def _read(directory: Path) -> ShimAddress | None:
    try:
        fields = json.loads((directory / "bootstrap.json").read_bytes()[:_LIMIT_BYTES])
        if fields.get("protocol") != "ttrpc":
            return None
        return _address(str(fields.get("address", "")), int(fields.get("version", 2)))
    except (OSError, ValueError, AttributeError, RecursionError):
        pass
    try:
        return _address((directory / "address").read_text()[:_LIMIT_BYTES].strip(), 2)
    except OSError:
        return None


def _address(text: str, api: int) -> ShimAddress | None:
    if not text or api not in {2, 3}:
        return None
    return ShimAddress(address=text, api=api)
