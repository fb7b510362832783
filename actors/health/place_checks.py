"""Checks of the place of the driver: do driver and containerd see the same files and processes?

A Nomad agent may run in a container. The driver binds mounts for the runtime below its state
directory, and the shim opens the logs by the process ids of workers. So containerd must see the
mounts and the process ids of the driver, and the driver must reach the sockets of the shims.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from actors.health.findings import Finding, fail, ok, warn
from actors.model.node import Node
from containerd import daemon_process
from proto.values import dataclass

_SHIMS = "/run/containerd"
_NETWORKS = "/run/netns"
_CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory"))
_PROC = Path("/proc")
_PAGE = "see docs/containers.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A thing that a container must share with the machine.

    serious: True if no task can start.
    """

    text: str
    advice: str
    serious: bool = True


def check(node: Node, snapshots: str, proc: Path = _PROC) -> Iterator[Finding]:
    """Yields findings about a driver in another mount or pid namespace than containerd. Blocks.

    Args:
        node: the node.
        snapshots: directory of the snapshotter; empty if containerd does not name the directory.
        proc: the file system of processes; tests use another directory.
    """
    try:
        pid = daemon_process.peer(node.settings.containerd_address)
    except OSError:
        return  # the row of containerd has the error
    found = list(faults(pid, node.settings.state_dir, snapshots, proc))
    for fault in found:
        finding = fail if fault.serious else warn
        yield finding("container", fault.text, fault.advice)
    if not found and pid and not _same(proc, pid, "mnt"):
        yield ok("container", f"all directories are shared with containerd (pid {pid})")


def problem(node: Node) -> str:
    """Returns the reason why no task can start at this place; empty without any. Blocks."""
    try:
        pid = daemon_process.peer(node.settings.containerd_address)
    except OSError:
        return ""
    for fault in faults(pid, node.settings.state_dir, ""):
        if fault.serious:
            return f"{fault.text} ({fault.advice})"
    return ""


def faults(pid: int, state_dir: str, snapshots: str, proc: Path = _PROC) -> Iterator[Fault]:
    """Yields the things that driver and containerd do not share.

    Args:
        pid: containerd's process; 0 for a process of an invisible pid namespace.
        state_dir: the driver's state directory.
        snapshots: directory of the snapshotter, or empty.
        proc: the file system of processes.
    """
    if not pid:
        yield Fault(
            text="containerd's process is not visible: the driver runs in a container with process"
            " ids of its own, and containerd cannot find the logs of tasks",
            advice="give the container the process ids of the machine, as docker's --pid=host;"
            f" {_PAGE}",
        )
        return
    try:
        if _same(proc, pid, "mnt"):
            return
        yield from _of_mounts(pid, state_dir, snapshots, proc)
        other = proc / str(pid) / "root"
        whole = all(_is_shared(path, other) for path in _CGROUPS if path.exists())
        if not whole or not _same(proc, pid, "cgroup"):
            yield Fault(
                text="the driver does not see the cgroups of the machine: tasks have no statistics",
                advice="give the container the cgroup namespace and the cgroups of the machine, as"
                " docker's --cgroupns=host --volume=/sys/fs/cgroup:/sys/fs/cgroup:rslave;"
                f" {_PAGE}",
                serious=False,
            )
    except PermissionError as error:
        yield Fault(
            text=f"cannot look at containerd's process {pid}: {error.strerror}",
            advice="run the container with all capabilities, as docker's --privileged",
            serious=False,
        )
    except FileNotFoundError:
        return  # containerd has just ended


def _of_mounts(pid: int, state_dir: str, snapshots: str, proc: Path) -> Iterator[Fault]:
    ours = (proc / "self/mountinfo").read_text(errors="surrogateescape")
    theirs = (proc / str(pid) / "mountinfo").read_text(errors="surrogateescape")
    other = proc / str(pid) / "root"
    for path, effect in (
        (state_dir, "no task starts"),
        (_NETWORKS, "jobs with a bridge network do not start"),
    ):
        here = _existing(Path(path))
        if not _is_shared(here, other) or not propagates(ours, theirs, str(here)):
            yield Fault(
                text=f"mounts below {path} do not reach containerd: {effect}",
                advice=f"make {path} a shared mount of the machine, and bind the mount into the"
                f" container, as docker's --volume={path}:{path}:rshared; {_PAGE}",
                serious=path == state_dir,
            )
    for path, purpose in ((_SHIMS, "the sockets of shims"), (snapshots, "the files of images")):
        if path and not _is_shared(Path(path), other):
            yield Fault(
                text=f"{path} is not that of containerd: the driver needs {purpose}",
                advice=f"bind the machine's {path} into the container, as docker's"
                f" --volume={path}:{path}:rslave; {_PAGE}",
            )


def propagates(ours: str, theirs: str, path: str) -> bool:
    """Returns whether a mount at or below a path here appears in another mount namespace.

    Args:
        ours: mountinfo of this process.
        theirs: mountinfo of the other process.
        path: the path, the same in both namespaces, without links.
    """
    group = _tags(ours, path).get("shared")
    other = _tags(theirs, path)
    return group is not None and group in {other.get("shared"), other.get("master")}


def _tags(mountinfo: str, path: str) -> dict[str, str]:
    """Returns the tags, such as `shared:1`, of the mount that a path lies in."""
    tags: dict[str, str] = {}
    longest = -1
    for line in mountinfo.split("\n"):
        words = line.partition(" - ")[0].split(" ")
        # The fields before are numbers, the root in the file system, the point and the options.
        point, own = "".join(words[4:5]).rstrip("/"), words[6:]
        inside = path == point or path.startswith(f"{point}/")
        if words[4:] and inside and len(point) >= longest:
            longest = len(point)
            tags = {name: group for name, _, group in (word.partition(":") for word in own)}
    return tags


def _existing(path: Path) -> Path:
    """Returns the directory, or its nearest parent that exists, without links."""
    return next(parent for parent in (path, *path.parents) if parent.exists()).resolve()


def _is_shared(path: Path, other: Path) -> bool:
    """Returns whether a path is the same file below another root."""
    try:
        here, there = path.stat(), (other / str(path.resolve()).lstrip("/")).stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(here, there)


def _same(proc: Path, pid: int, kind: str) -> bool:
    return (proc / "self/ns" / kind).readlink() == (proc / str(pid) / "ns" / kind).readlink()
