"""Network namespaces of allocations, created by the driver in Nomad's place.

Nomad itself cannot give an allocation a host name: `network { hostname }` needs a driver that
creates the network. So with `network_creation = "driver"` the driver creates the namespace, at the
path and with the mount of Nomad's own. Nomad connects the namespace, as always.

The namespace is the only state: a restarted plugin finds the namespace by the allocation's id.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

from actors.model import identifiers
from actors.model.nomad import NetworkIsolation
from containerd import syscalls
from proto.errors import Code, DriverError

DIRECTORY = Path("/var/run/netns")
"""The directory of Nomad's own namespaces."""
HOSTNAME = "docker_sandbox_hostname"
"""Label of the host name: Nomad's docker driver chose the name, and Nomad looks for the label."""
_ALLOC_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,127}")
_GROUP = 1  # a namespace that all tasks of a group share
_THIS = "/proc/thread-self/ns/net"


def create(
    alloc_id: str, hostname: str, directory: Path = DIRECTORY
) -> tuple[NetworkIsolation, bool]:
    """Creates an allocation's namespace, without any address. Blocks.

    Args:
        alloc_id: Nomad's id.
        hostname: the group's `hostname`, or empty.
        directory: the directory of the namespaces.

    Returns:
        The network; and False if the namespace was there already, as after a restart of the agent.

    Raises:
        DriverError: code INVALID; the id or the host name is unusable. Code UNAVAILABLE; the kernel
            refuses.
    """
    path = _path(alloc_id, directory)
    labels = {}
    if hostname:
        labels[HOSTNAME] = identifiers.checked_hostname(hostname, "network")
    network = NetworkIsolation(mode=_GROUP, path=str(path), labels=labels)
    if is_mounted(path):
        return network, False
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        _share(str(directory))
        # A creation that was interrupted may have left the file.
        path.touch(mode=0o444)
        syscalls.in_a_thread_of_its_own(lambda: _bind_new(str(path)))
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise DriverError(
            f"cannot create the network namespace {path}",
            details=f"{error.filename or ''}: {error.strerror}",
            resolution="network namespaces need root, and a kernel with network namespaces",
            recoverable=True,
            code=Code.UNAVAILABLE,
        ) from error
    return network, True


def destroy(alloc_id: str, directory: Path = DIRECTORY) -> None:
    """Removes an allocation's namespace; a missing namespace is no failure. Blocks.

    Processes of the allocation that still run keep the namespace itself until their end.

    Raises:
        DriverError: code INVALID for an unusable id; code UNAVAILABLE, the kernel refuses.
    """
    path = _path(alloc_id, directory)
    try:
        while is_mounted(path):
            syscalls.unmount(str(path))
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DriverError(
            f"cannot remove the network namespace {path}",
            details=error.strerror or "",
            resolution=f"ip netns delete {alloc_id}",
            recoverable=True,
            code=Code.UNAVAILABLE,
        ) from error


def is_mounted(path: Path) -> bool:
    """Returns True if the path is a network namespace; an unmount leaves a plain file."""
    with contextlib.suppress(OSError):
        # All namespaces are in one file system, which has no other files.
        return os.stat(path).st_dev == os.stat(_THIS).st_dev  # noqa: PTH116
    return False


def _path(alloc_id: str, directory: Path) -> Path:
    if not _ALLOC_ID.fullmatch(alloc_id):
        raise DriverError(f"network: {alloc_id[:64]!r} is not an allocation", code=Code.INVALID)
    return directory / alloc_id


def _share(directory: str) -> None:
    """Makes the directory a shared mount, as Nomad does: containers that mount it see changes."""
    shared = syscalls.MS_SHARED | syscalls.MS_REC
    try:
        syscalls.mount("", directory, "", shared)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the directory is not a mount yet
            raise
        syscalls.mount(directory, directory, "", syscalls.MS_BIND | syscalls.MS_REC)
        syscalls.mount("", directory, "", shared)


def _bind_new(path: str) -> None:
    """Gives the calling thread a new namespace, and keeps the namespace at the path."""
    syscalls.unshare(syscalls.CLONE_NEWNET)
    syscalls.mount(_THIS, path, "", syscalls.MS_BIND)
