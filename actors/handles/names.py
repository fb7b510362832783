"""Whether a handle names what this driver would have made for the task that it is given for.

Nomad keeps handles in a file. Whoever writes to that file must not have a recovery remove a
directory, stop a container or open a FIFO of another task or of nobody.
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
    """Checks that a handle is of this very task.

    Raises:
        DriverError: `failed to decode task state from handle`, code CORRUPT.
    """
    for why in _strange(task, handle):
        raise DriverError(
            "failed to decode task state from handle",
            details=f"{task.id}: {why}",
            resolution="this driver writes no such handle, so nothing was touched: have Nomad start"
            " the task anew",
            code=Code.CORRUPT,
        )


def check_container(task: TaskConfig, record: ContainerRecord | None) -> None:
    """Checks that a container, where it is there, was made for this task, by any start of it.

    Raises:
        DriverError: code CORRUPT.
    """
    if record is None:
        return
    made_for = record.labels.get(LABEL_TASK_ID, "")
    if not made_for.startswith(f"{task.alloc_id}/{task.name}/"):
        raise DriverError(
            "failed to decode task state from handle",
            details=f"{task.id}: container {record.id} was made for {made_for[:128]!r}",
            resolution="nothing was touched: have Nomad start the task anew",
            code=Code.CORRUPT,
        )


def _strange(task: TaskConfig, handle: HandleState | GoHandle) -> Iterator[str]:
    """Returns what this driver would not have written, one sentence each."""
    names = {
        identifiers.container_id(task.alloc_id, task.name, cgroup_v2=cgroup_v2)
        for cgroup_v2 in (False, True)
    }
    if handle.container_id not in names:
        yield f"its container {handle.container_id[:80]!r} is another task's"
    if not identifiers.is_container_id(handle.containerd_namespace):
        yield f"{handle.containerd_namespace[:80]!r} is no namespace of containerd"
    snapshotter = getattr(handle, "snapshotter", "")
    if snapshotter and not identifiers.is_container_id(snapshotter):
        yield f"{snapshotter[:80]!r} is no snapshotter"
    paths = ((handle.stdout_path, task.stdout_path), (handle.stderr_path, task.stderr_path))
    for stream, (written, given) in zip(("stdout", "stderr"), paths, strict=True):
        # An agent whose data_dir has moved gives another path than at the start.
        moved = f"/{task.alloc_id}/alloc/logs/.{task.name}.{stream}.fifo"
        plain = ".." not in written.split("/") and written.startswith("/")
        if written not in {given, *_NO_LOG} and not (plain and written.endswith(moved)):
            yield f"its log {written[:128]!r} is not the task's"
