"""Names that the driver gives to things, derived from Nomad's task id and nothing else.

The forms are the Go driver's, so that its containers are found and acceptance tests that look at
cgroup paths hold; what containerd's rule for ids refuses is sanitised and told apart by a hash.
"""

from __future__ import annotations

import hashlib
import re

from proto.errors import Code, DriverError

PREFIX = "nomad-driver-containerd"
PULL_LEASE = f"{PREFIX}-pull-"

# containerd identifiers.Validate: at most 76 characters of this shape.
_MAX_ID = 76
_VALID_ID = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
_UNSAFE = re.compile(r"[^A-Za-z0-9]+")
# The kernel takes 64 bytes for a host name; a DNS label has 63.
_MAX_HOSTNAME = 63


def namespace(*, cgroup_v2: bool) -> str:
    """Containerd's namespace for the driver's containers."""
    return "nomad.slice" if cgroup_v2 else "nomad"


def split_task_id(task_id: str) -> tuple[str, str]:
    """(alloc id, task name) of Nomad's `<alloc>/<task>/<8 hex>`.

    Raises:
        DriverError: code INVALID; the id has another form.
    """
    alloc, _, rest = task_id.partition("/")
    name, slash, _ = rest.rpartition("/")
    if not alloc or not name or not slash:
        raise DriverError(
            f"task id {task_id[:128]!r} is not of the form <alloc>/<task>/<id>",
            code=Code.INVALID,
        )
    return alloc, name


def is_container_id(text: str) -> bool:
    """Returns whether containerd takes it for a container's id."""
    return len(text) <= _MAX_ID and _VALID_ID.fullmatch(text) is not None


def container_id(alloc_id: str, task_name: str, *, cgroup_v2: bool) -> str:
    """`<task>-<alloc>` on cgroup v1, `<alloc>.<task>.scope` on v2, where containerd takes it."""
    plain = f"{alloc_id}.{task_name}.scope" if cgroup_v2 else f"{task_name}-{alloc_id}"
    if is_container_id(plain):
        return plain
    digest = hashlib.sha256(f"{alloc_id}/{task_name}".encode()).hexdigest()[:12]
    word = _UNSAFE.sub("-", task_name).strip("-")[:16].strip("-") or "task"
    alloc = _UNSAFE.sub("-", alloc_id).strip("-")[:36].strip("-") or "alloc"
    return f"{alloc}.{word}-{digest}.scope" if cgroup_v2 else f"{word}-{digest}-{alloc}"


def hostname(alloc_id: str, task_name: str) -> str:
    """A host name for a task whose job names none: `<task>-<first 8 of alloc>`, a DNS label."""
    word = _UNSAFE.sub("-", task_name).strip("-").lower() or "task"
    tail = _UNSAFE.sub("", alloc_id)[:8]
    return f"{word[: _MAX_HOSTNAME - 9]}-{tail}" if tail else word[:_MAX_HOSTNAME]


def snapshot_key(container: str) -> str:
    """Key of the container's writable snapshot."""
    return f"{container}-snapshot"


def lease_id(container: str) -> str:
    """Lease that guards what a start makes until the container refers to it."""
    return f"{PREFIX}-{container}"


def cgroup_path(container: str, containerd_namespace: str) -> str:
    """Path of the container's cgroup below the controllers' roots."""
    return f"/{containerd_namespace}/{container}"


def pull_lease(number: int) -> str:
    """Lease that guards what a pull brings until the image refers to it."""
    return f"{PULL_LEASE}{number:x}"
