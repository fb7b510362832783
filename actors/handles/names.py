"""Checks that a handle names objects of the task that Nomad sends with the handle.

Nomad keeps handles in a file. A forged handle in the file must not make a recovery remove a
directory, stop a container or open a FIFO of another task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.model import identifiers
from actors.model.ownership import LABEL_TASK_ID
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.handles.go_handle import GoHandle
    from actors.handles.handle import HandleState
    from actors.model.nomad import TaskConfig
    from containerd.api.records import ContainerRecord

_NO_LOG = ("", "/dev/null")


def check(task: TaskConfig, handle: HandleState | GoHandle) -> None:
    """Checks a handle against the task of the handle's request.

    Raises:
        DriverError: `failed to decode task state from handle`, code CORRUPT.
    """
    for why in _strange(task, handle):
        raise DriverError(
            "failed to decode task state from handle",
            details=f"{task.id}: {why}",
            resolution="the driver did not write this handle, and changed nothing: let Nomad start"
            " the task again",
            code=Code.CORRUPT,
        )


def check_container(task: TaskConfig, record: ContainerRecord | None) -> None:
    """Checks a container's owner: any start of the task is right.

    Args:
        task: Nomad's description of the task.
        record: None where the container does not exist, which is no failure.

    Raises:
        DriverError: `failed to decode task state from handle`, code CORRUPT.
    """
    if record is None:
        return
    owner = record.labels.get(LABEL_TASK_ID, "")
    if not owner.startswith(f"{task.alloc_id}/{task.name}/"):
        raise DriverError(
            "failed to decode task state from handle",
            details=f"{task.id}: container {record.id} belongs to task {owner[:128]!r}",
            resolution="the driver changed nothing: let Nomad start the task again",
            code=Code.CORRUPT,
        )


def _strange(task: TaskConfig, handle: HandleState | GoHandle) -> Iterator[str]:
    """Yields a sentence for each value that the driver would not have written for the task."""
    names = {
        identifiers.container_id(task.alloc_id, task.name, cgroup_v2=cgroup_v2)
        for cgroup_v2 in (False, True)
    }
    if handle.container_id not in names:
        yield f"container {handle.container_id[:80]!r} belongs to another task"
    if not identifiers.is_container_id(handle.containerd_namespace):
        yield f"{handle.containerd_namespace[:80]!r} is not a namespace of containerd"
    snapshotter = getattr(handle, "snapshotter", "")
    if snapshotter and not identifiers.is_container_id(snapshotter):
        yield f"{snapshotter[:80]!r} is not a snapshotter"
    paths = ((handle.stdout_path, task.stdout_path), (handle.stderr_path, task.stderr_path))
    for stream, (written, sent) in zip(("stdout", "stderr"), paths, strict=True):
        # After a move of its data_dir the agent sends another path than at the start.
        moved = f"/{task.alloc_id}/alloc/logs/.{task.name}.{stream}.fifo"
        plain = ".." not in written.split("/") and written.startswith("/")
        if written not in {sent, *_NO_LOG} and not (plain and written.endswith(moved)):
            yield f"log {written[:128]!r} belongs to another task"
