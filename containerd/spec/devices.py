"""Lists the host's devices for a container: the nodes, and the cgroup rules that allow them.

Every runtime adds null, zero, full, random, urandom, tty, pts and ptmx to a container, with nodes
and cgroup rules.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from containerd.documents import Document
from containerd.spec.final_mounts import NODES
from containerd.spec.mounts import Reach, is_reserved
from proto.errors import start_refused
from proto.values import dataclass

_PERMISSIONS = "rwm"
_MAX_NODES = 4096
_MAX_DIRECTORIES = 10_000
# Names in /dev that a privileged task does not get: the container's own, or no devices.
_NOT_HOSTS = frozenset(
    {"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "ptmx", "tty"}
)


# Devices that the runtime creates or may replace, by name; a job may name them without effect.
_RUNTIMES_OWN = {**NODES, "ptmx": (5, 2), "console": (5, 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    """A node at `path` in the container; kind is `c` or `b`, mode has the permission bits."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    permissions: str = _PERMISSIONS


def host_nodes(
    host_path: str, container_path: str = "", permissions: str = "", *, what: str = "devices"
) -> list[DeviceNode]:
    """Returns the node at a path of the host, or all nodes below a directory. Follows links.

    Args:
        host_path: absolute path of the host.
        container_path: path in the container; empty for the same path.
        permissions: some of r, w and m; empty for all three.
        what: the option's name, for errors.

    Raises:
        DriverError: code INVALID; no device is at the path, or another argument is wrong.
    """
    wanted = permissions or _PERMISSIONS
    if set(wanted) - set(_PERMISSIONS) or len(set(wanted)) != len(wanted):
        raise start_refused(
            f"{what}: permissions {permissions[:16]!r} of {host_path[:128]!r} are not rwm"
        )
    target = _clean_path(container_path or host_path, what)
    if not host_path.startswith("/") or "\0" in host_path:
        raise start_refused(f"{what}: {host_path[:128]!r} is not an absolute path of the host")
    try:
        status = os.stat(host_path)  # noqa: PTH116 - follows the links of /dev/disk/by-id
        if stat.S_ISDIR(status.st_mode):
            nodes = list(_below(_device_directory(host_path, what), target, wanted))
        else:
            nodes = [_node(status, host_path, target, wanted, what)]
    except OSError as error:
        raise start_refused(
            f"{what}: {host_path[:128]!r} cannot be used: {error.strerror}",
            "name a device of this node",
        ) from error
    for node in nodes:
        _check_path(node, what)
    if not nodes:
        raise start_refused(
            f"{what}: {host_path[:128]!r} is a directory without devices: not a device node"
        )
    if len(nodes) > _MAX_NODES:
        raise start_refused(
            f"{what}: {host_path[:128]!r} is a directory with more than {_MAX_NODES} devices"
        )
    return nodes


def every_host_node() -> list[DeviceNode]:
    """Lists all devices of the host, for a privileged task. Skips a device that is just removed."""
    nodes: list[DeviceNode] = []
    for name in sorted(os.listdir("/dev")):  # noqa: PTH208 - names only
        path = f"/dev/{name}"
        status = None if name in _NOT_HOSTS else _status(path)
        if status is not None and stat.S_ISDIR(status.st_mode):
            nodes += _below(path, path, _PERMISSIONS)
        elif status is not None and _is_device(status):
            nodes.append(_node(status, path, path, _PERMISSIONS, "devices"))
    return nodes


def unique(nodes: Iterable[DeviceNode]) -> tuple[DeviceNode, ...]:
    """Keeps the last node of each path."""
    return tuple({node.path: node for node in nodes}.values())


def oci_nodes(nodes: Iterable[DeviceNode]) -> list[Document]:
    """Builds the `linux.devices` of a spec."""
    return [
        {
            "path": node.path,
            "type": node.kind,
            "major": node.major,
            "minor": node.minor,
            "fileMode": node.mode,
            "uid": node.uid,
            "gid": node.gid,
        }
        for node in nodes
    ]


def cgroup_rules(nodes: Iterable[DeviceNode], *, everything: bool = False) -> list[Document]:
    """Builds the `linux.resources.devices` of a spec: denies everything, then allows the nodes.

    With `everything` the task may use all devices, also devices that appear later.
    """
    if everything:
        return [{"allow": True, "access": _PERMISSIONS}]
    rules: list[Document] = [{"allow": False, "access": _PERMISSIONS}]
    for node in nodes:
        rule: Document = {
            "allow": True,
            "type": node.kind,
            "major": node.major,
            "minor": node.minor,
            "access": node.permissions,
        }
        if rule not in rules:
            rules.append(rule)
    return rules


def _device_directory(path: str, what: str) -> str:
    """Resolves the links of a directory. Refuses a directory outside /dev: "/" is a whole disk."""
    real = os.path.realpath(path)
    if not real.startswith("/dev/"):
        raise start_refused(
            f"{what}: {path[:128]!r} is a directory outside /dev: not a device node"
        )
    return real


def _below(directory: str, target: str, permissions: str) -> Iterator[DeviceNode]:
    """Yields the devices below a directory.

    Any user may nest directories in /dev/shm and /dev/mqueue. So the search does not recurse, and
    reads a bounded number of directories.
    """
    waiting, searched = [directory], 0
    while waiting and searched < _MAX_DIRECTORIES:
        base, searched = waiting.pop(), searched + 1
        try:
            with os.scandir(base) as items:
                entries = sorted(items, key=lambda item: item.name)
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif _is_device(status := entry.stat(follow_symlinks=False)):
                inside = target + entry.path[len(directory) :]
                yield _node(status, entry.path, inside, permissions, "devices")


def _status(path: str) -> os.stat_result | None:
    """Returns the status of a listed name without following links; None if the name is gone."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def _is_device(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)


def _node(
    status: os.stat_result, host_path: str, target: str, permissions: str, what: str
) -> DeviceNode:
    if not _is_device(status):
        raise start_refused(f"{what}: {host_path[:128]!r}: not a device node")
    return DeviceNode(
        path=target,
        kind="c" if stat.S_ISCHR(status.st_mode) else "b",
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        permissions=permissions,
    )


def _check_path(node: DeviceNode, what: str) -> None:
    """Refuses another device at a path of the runtime's own.

    For example, the runtime opens /dev/null for a task without logs.
    """
    numbers = _RUNTIMES_OWN.get(node.path.removeprefix("/dev/"))
    if numbers != (node.major, node.minor) and is_reserved(node.path, Reach.JOB):
        raise start_refused(
            f"{what}: {node.path[:128]!r} is made by the runtime, and cannot be another device",
            "choose another path in the container for the device",
        )


def _clean_path(path: str, what: str) -> str:
    parts = [part for part in path.split("/") if part not in {"", "."}]
    wrong = not path.startswith("/") or not path.isprintable() or ".." in parts or not parts
    if wrong or parts[0] in {"proc", "sys"}:
        raise start_refused(
            f"{what}: {path[:128]!r} cannot be the path of a device in the container"
        )
    return "/" + "/".join(parts)
