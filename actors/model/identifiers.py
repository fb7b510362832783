"""Names of the driver's objects, derived from Nomad's task id alone.

The forms are the Go driver's: this driver finds containers of the Go driver, and acceptance tests
that read cgroup paths pass. A name that breaks containerd's rule for ids is sanitised, and gets a
hash that keeps names distinct.
"""

from __future__ import annotations

import hashlib
import re

from proto.errors import Code, DriverError, start_refused

PREFIX = "nomad-driver-containerd"
PULL_LEASE = f"{PREFIX}-pull-"

# containerd identifiers.Validate: at most 76 characters of this shape.
_MAX_ID = 76
_VALID_ID = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
_UNSAFE = re.compile(r"[^A-Za-z0-9]+")
# The kernel allows 64 bytes for a host name, DNS 63 for a label.
_MAX_HOSTNAME = 63
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


def namespace(*, cgroup_v2: bool) -> str:
    """Returns containerd's namespace for the driver's containers."""
    return "nomad.slice" if cgroup_v2 else "nomad"


def split_task_id(task_id: str) -> tuple[str, str]:
    """Splits Nomad's `<alloc>/<task>/<8 hex>` into (alloc id, task name).

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


def checked_hostname(name: str, option: str) -> str:
    """Returns a host name.

    Args:
        name: the name, as Nomad or a job gives it.
        option: the option's name, for errors.

    Raises:
        DriverError: code INVALID; the kernel or /etc/hosts cannot have the name.
    """
    if len(name) > _MAX_HOSTNAME or not _HOSTNAME.fullmatch(name):
        raise start_refused(
            f"{option}: {name[:80]!r} is not a host name of at most {_MAX_HOSTNAME} letters,"
            " digits, - and ."
        )
    return name


def is_container_id(text: str) -> bool:
    """Returns whether containerd accepts a text as a container's id."""
    return len(text) <= _MAX_ID and _VALID_ID.fullmatch(text) is not None


def container_id(alloc_id: str, task_name: str, *, cgroup_v2: bool) -> str:
    """Returns `<task>-<alloc>` on cgroup v1, `<alloc>.<task>.scope` on v2.

    Returns a sanitised name with a hash where containerd would refuse the plain name.
    """
    plain = f"{alloc_id}.{task_name}.scope" if cgroup_v2 else f"{task_name}-{alloc_id}"
    if is_container_id(plain):
        return plain
    digest = hashlib.sha256(f"{alloc_id}/{task_name}".encode()).hexdigest()[:12]
    word = _UNSAFE.sub("-", task_name).strip("-")[:16].strip("-") or "task"
    alloc = _UNSAFE.sub("-", alloc_id).strip("-")[:36].strip("-") or "alloc"
    return f"{alloc}.{word}-{digest}.scope" if cgroup_v2 else f"{word}-{digest}-{alloc}"


def hostname(alloc_id: str, task_name: str) -> str:
    """Returns a task's default host name: `<task>-<first 8 of alloc>`, a DNS label."""
    word = _UNSAFE.sub("-", task_name).strip("-").lower() or "task"
    tail = _UNSAFE.sub("", alloc_id)[:8]
    return f"{word[: _MAX_HOSTNAME - 9]}-{tail}" if tail else word[:_MAX_HOSTNAME]


def snapshot_key(container: str) -> str:
    """Returns the key of the container's writable snapshot."""
    return f"{container}-snapshot"


def lease_id(container: str) -> str:
    """Returns the lease that protects a start's objects until the container refers to them."""
    return f"{PREFIX}-{container}"


def cgroup_path(container: str, containerd_namespace: str) -> str:
    """Returns the path of the container's cgroup below the controllers' roots."""
    return f"/{containerd_namespace}/{container}"


def pull_lease(number: int) -> str:
    """Returns the lease that protects a pull's blobs until the image refers to them."""
    return f"{PULL_LEASE}{number:x}"
