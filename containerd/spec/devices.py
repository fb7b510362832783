"""Devices of the host in a container: nodes as the host has them, and the cgroup's leave to use.

What every container has anyway (null, zero, full, random, urandom, tty, pts, ptmx) the runtimes
add themselves, nodes and cgroup rules both.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from containerd.documents import Document
from containerd.spec.final_mounts import NODES
from containerd.spec.mounts import Reach, invalid, is_reserved

_PERMISSIONS = "rwm"
_MAX_NODES = 4096
_MAX_DIRECTORIES = 10_000
# Kept out of "all devices of the host": these are the container's own, or no devices at all.
_NOT_HOSTS = frozenset(
    {"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "ptmx", "tty"}
)


# Devices that the runtime makes or may replace, by name; given again, they change nothing.
_RUNTIMES_OWN = {**NODES, "ptmx": (5, 2), "console": (5, 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    """A node at `path` in the container; kind is `c` or `b`, mode its permission bits."""

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
    """The node at a path of the host, or all nodes below a directory. Links are followed.

    Args:
        host_path: absolute.
        container_path: where it is in the container; empty is the same place.
        permissions: some of r, w and m; empty is all.
        what: the option, for errors.

    Raises:
        DriverError: code INVALID; there is no such device, or the other two are wrong.
    """
    wanted = permissions or _PERMISSIONS
    if set(wanted) - set(_PERMISSIONS) or len(set(wanted)) != len(wanted):
        raise invalid(
            f"{what}: permissions {permissions[:16]!r} of {host_path[:128]!r} are not rwm"
        )
    target = _clean_path(container_path or host_path, what)
    if not host_path.startswith("/") or "\0" in host_path:
        raise invalid(f"{what}: {host_path[:128]!r} is not an absolute path of the host")
    try:
        found = os.stat(host_path)  # noqa: PTH116 - follows links, as /dev/disk/by-id is made of
        if stat.S_ISDIR(found.st_mode):
            nodes = list(_below(_device_directory(host_path, what), target, wanted))
        else:
            nodes = [_node(found, host_path, target, wanted, what)]
    except OSError as error:
        raise invalid(
            f"{what}: {host_path[:128]!r} cannot be used: {error.strerror}",
            "name a device that this node has",
        ) from error
    for node in nodes:
        _check_place(node, what)
    if not nodes:
        raise invalid(f"{what}: {host_path[:128]!r} has no device below it: not a device node")
    if len(nodes) > _MAX_NODES:
        raise invalid(f"{what}: {host_path[:128]!r} has more than {_MAX_NODES} devices below it")
    return nodes


def every_host_node() -> list[DeviceNode]:
    """All devices of the host, for a privileged task. One that vanishes meanwhile is left out."""
    found: list[DeviceNode] = []
    for name in sorted(os.listdir("/dev")):  # noqa: PTH208 - names only
        path = f"/dev/{name}"
        status = None if name in _NOT_HOSTS else _status(path)
        if status is not None and stat.S_ISDIR(status.st_mode):
            found += _below(path, path, _PERMISSIONS)
        elif status is not None and _is_device(status):
            found.append(_node(status, path, path, _PERMISSIONS, "devices"))
    return found


def unique(nodes: Iterable[DeviceNode]) -> tuple[DeviceNode, ...]:
    """One node per place; the last one wins."""
    return tuple({node.path: node for node in nodes}.values())


def oci_nodes(nodes: Iterable[DeviceNode]) -> list[Document]:
    """The `linux.devices` of a spec."""
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
    """The `linux.resources.devices` of a spec: nothing, and then the devices of this task.

    With `everything` also those that appear later.
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
    """The directory behind links; only /dev is searched, for "/" would be the whole disk."""
    real = os.path.realpath(path)
    if not real.startswith("/dev/"):
        raise invalid(f"{what}: {path[:128]!r} is a directory outside /dev: not a device node")
    return real


def _below(directory: str, target: str, permissions: str) -> Iterator[DeviceNode]:
    """Gives the devices below a directory.

    /dev/shm and /dev/mqueue are below /dev too, and any user may nest directories there: so the
    search has a stack of its own and a bounded number of directories.
    """
    waiting, looked = [directory], 0
    while waiting and looked < _MAX_DIRECTORIES:
        base, looked = waiting.pop(), looked + 1
        try:
            with os.scandir(base) as found:
                entries = sorted(found, key=lambda item: item.name)
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif _is_device(status := entry.stat(follow_symlinks=False)):
                inside = target + entry.path[len(directory) :]
                yield _node(status, entry.path, inside, permissions, "devices")


def _status(path: str) -> os.stat_result | None:
    """The status of a name that was there a moment ago, no link followed; None where it is gone."""
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
        raise invalid(f"{what}: {host_path[:128]!r}: not a device node")
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


def _check_place(node: DeviceNode, what: str) -> None:
    """Refuses a place in /dev that the runtime makes: it opens /dev/null for a task without log."""
    own = _RUNTIMES_OWN.get(node.path.removeprefix("/dev/"))
    if own != (node.major, node.minor) and is_reserved(node.path, Reach.JOB):
        raise invalid(
            f"{what}: {node.path[:128]!r} is made by the runtime, and takes no other device",
            "give the device another place in the container",
        )


def _clean_path(path: str, what: str) -> str:
    parts = [part for part in path.split("/") if part not in {"", "."}]
    wrong = not path.startswith("/") or not path.isprintable() or ".." in parts or not parts
    if wrong or parts[0] in {"proc", "sys"}:
        raise invalid(f"{what}: {path[:128]!r} is no place for a device in the container")
    return "/" + "/".join(parts)
