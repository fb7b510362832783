"""Opens namespaces that a task shares with another task of the allocation, or another process.

The descriptors keep the kernel's objects while the start goes on, and the pins of the start give
the runtime a path. So neither the end of the other process nor the reuse of its pid leads the task
into a namespace of a third process.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import json
import os
import posixpath
from typing import TYPE_CHECKING

from actors.blocking import file_servers
from actors.model import identifiers
from actors.model.nomad import NetworkIsolation
from actors.model.ownership import LABEL_ALLOC_ID
from containerd import syscalls
from containerd.api.records import Status
from containerd.runtimes import Runtime
from proto.errors import Code, DriverError, start_refused
from proto.values import dataclass

if TYPE_CHECKING:
    from actors.model.node import Node
    from actors.model.nomad import TaskConfig
    from actors.model.settings import TaskOptions
    from containerd.api.records import ContainerRecord

TASK, CONTAINER, PATH = "task:", "container:", "ns:"
"""Beginnings of modes: a task of the allocation, a container of containerd, a path of the node."""
MEMORY = "shm"
"""Name of the other task's /dev/shm, beside the kinds of namespaces."""
_FILES = {"pid": "pid", "ipc": "ipc", "network": "net"}  # by the OCI spec's kind
_FLAGS = {"pid": 0x20000000, "ipc": 0x08000000, "network": syscalls.CLONE_NEWNET}
_OF_TASK = 2  # Nomad's mode of a network for one task
_NS_GET_NSTYPE = 0xB703
_SHARED_MEMORY = "dev/shm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A job's wish for a namespace: kind is the OCI spec's, mode as the job wrote the option."""

    option: str
    kind: str
    mode: str

    @property
    def name(self) -> str:
        """Name of the task or container, or the path."""
        return self.mode.partition(":")[2]


def wishes(options: TaskOptions) -> tuple[Wish, ...]:
    """Returns the namespaces that a job wants to share with another process."""
    modes = (
        ("pid_mode", "pid", options.pid_mode),
        ("ipc_mode", "ipc", options.ipc_mode),
        ("network_mode", "network", options.network_mode),
    )
    return tuple(
        Wish(option=option, kind=kind, mode=mode) for option, kind, mode in modes if ":" in mode
    )


class SharedNamespaces:
    """Open namespaces by kind, and the other task's /dev/shm as MEMORY; `close` closes all.

    of_node: the kinds that are the node's own, because the other process shares them.
    """

    def __init__(self) -> None:
        self.descriptors: dict[str, int] = {}
        self.of_node: set[str] = set()
        self._closed = False

    def add(self, kind: str, descriptor: int) -> None:
        """Adds a descriptor; a late descriptor, after `close`, is closed."""
        if self._closed:
            os.close(descriptor)
        else:
            self.descriptors[kind] = descriptor

    def close(self) -> None:
        """Closes the descriptors."""
        self._closed = True
        while self.descriptors:
            os.close(self.descriptors.popitem()[1])


async def opened(node: Node, task: TaskConfig, options: TaskOptions) -> SharedNamespaces:
    """Opens the namespaces of a job's wishes. The caller closes them.

    Raises:
        DriverError: code PRECONDITION, recoverable: the other process does not run. INVALID: the
            mode names no process of the allocation, or no namespace.
    """
    shared = SharedNamespaces()
    try:
        for wish in wishes(options):
            await _open(node, task, wish, shared)
    except BaseException:
        shared.close()
        raise
    return shared


async def _open(node: Node, task: TaskConfig, wish: Wish, shared: SharedNamespaces) -> None:
    if wish.mode.startswith(PATH):
        shared.add(wish.kind, await file_servers.run_probed(lambda: _of_path(wish)))
    else:
        await _of_container(node, task, wish, shared)
    number = os.fstat(shared.descriptors[wish.kind]).st_ino
    if number == os.stat(f"/proc/self/ns/{_FILES[wish.kind]}").st_ino:  # noqa: PTH116 - of the magic link
        shared.of_node.add(wish.kind)


def _of_path(wish: Wish) -> int:
    """Opens the namespace at a path of the node, and no other kind of file."""
    file_servers.visit(wish.name, wish.option)
    try:
        named = os.open(wish.name, os.O_PATH | os.O_CLOEXEC)
        try:
            # Every namespace is a file of one file system of the kernel.
            if os.fstat(named).st_dev != os.stat("/proc/self/ns/net").st_dev:  # noqa: PTH116
                raise _no_namespace(wish, "the file is no namespace")
            descriptor = os.open(f"/proc/self/fd/{named}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(named)
    except OSError as error:
        raise _no_namespace(wish, error.strerror or str(error)) from error
    if fcntl.ioctl(descriptor, _NS_GET_NSTYPE) != _FLAGS[wish.kind]:
        os.close(descriptor)
        raise _no_namespace(wish, f"the namespace is no {wish.kind} namespace")
    return descriptor


async def _of_container(node: Node, task: TaskConfig, wish: Wish, shared: SharedNamespaces) -> None:
    container = wish.name
    if wish.mode.startswith(TASK):
        if wish.name == task.name:
            raise start_refused(f"{wish.option}: {wish.mode[:128]!r} is the task itself")
        container = identifiers.container_id(task.alloc_id, wish.name, cgroup_v2=node.cgroup_v2)
    record = await node.containerd.containers.get(container)
    if record is None:
        raise _not_running(wish)
    if wish.mode.startswith(TASK) and record.labels.get(LABEL_ALLOC_ID) != task.alloc_id:
        raise _not_running(wish)
    if not Runtime(name=record.runtime, binary_name=record.runtime_binary).shares_kernel:
        raise start_refused(
            f"{wish.option}: {wish.mode[:128]!r} runs on {record.runtime}, whose tasks have a"
            " kernel of their own",
            "use runc or crun for both tasks",
        )
    pid = await _running(node, container)
    if pid:
        opening = asyncio.to_thread(_of_process, pid, record, wish, shared)
        # A task with the right to mount can have put a silent file system at its /dev/shm.
        await file_servers.until(asyncio.ensure_future(opening), lambda: f"container {container}")
    # The same process still runs: nothing of another process was opened.
    if not pid or await _running(node, container) != pid:
        raise _not_running(wish)


async def _running(node: Node, container: str) -> int:
    found = await node.containerd.tasks.get(container)
    return found.pid if found is not None and found.status is Status.RUNNING else 0


def _of_process(pid: int, record: ContainerRecord, wish: Wish, shared: SharedNamespaces) -> None:
    """Opens a namespace of a container's process.

    All files are opened below one descriptor of /proc/<pid>, which never means another process, and
    the cgroup shows the container of that process.
    """
    try:
        process = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not _is_in_cgroup(process, record):
                raise _not_running(wish)
            shared.add(wish.kind, _file(process, f"ns/{_FILES[wish.kind]}"))
            if wish.kind == "ipc":
                shared.add(MEMORY, _memory(process))
        finally:
            os.close(process)
    except OSError as error:
        raise _not_running(wish, error) from error
    host = os.stat(f"/{_SHARED_MEMORY}").st_dev  # noqa: PTH116
    if MEMORY in shared.descriptors and os.fstat(shared.descriptors[MEMORY]).st_dev == host:
        shared.of_node.add("ipc")


def _file(process: int, path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)


def _is_in_cgroup(process: int, record: ContainerRecord) -> bool:
    # Another client of containerd may have created the container, with a spec of any form.
    try:
        path = json.loads(record.spec_json)["linux"]["cgroupsPath"]
        name = posixpath.basename(path.rpartition(":")[2])
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    if not name:
        return False
    with open(_file(process, "cgroup")) as file:
        return any(name in line.strip().split("/") for line in file)


def _memory(process: int) -> int:
    """Returns a detached copy of the mount at a process's /dev/shm."""

    def copy() -> int:
        mounts = _file(process, "ns/mnt")
        try:
            syscalls.unshare(syscalls.CLONE_FS)
            syscalls.setns(mounts, syscalls.CLONE_NEWNS)
        finally:
            os.close(mounts)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            directory = syscalls.openat2(
                root, _SHARED_MEMORY, os.O_PATH | os.O_DIRECTORY, syscalls.INSIDE
            )
        finally:
            os.close(root)
        try:
            return syscalls.copy_mount(directory)
        finally:
            os.close(directory)

    return syscalls.in_a_thread_of_its_own(copy)


def with_network(task: TaskConfig, options: TaskOptions, shared: SharedNamespaces) -> TaskConfig:
    """Returns the task with the network that the task will have, instead of the allocation's."""
    if "network" in shared.descriptors:
        path = f"/proc/self/fd/{shared.descriptors['network']}"
        return dataclasses.replace(task, network=NetworkIsolation(mode=_OF_TASK, path=path))
    return dataclasses.replace(task, network=None) if options.network_mode == "none" else task


def pin(directory: str, shared: SharedNamespaces) -> None:
    """Mounts each namespace in the directory, under its kind. Blocks.

    Raises:
        OSError: of the kernel.
    """
    for kind, descriptor in shared.descriptors.items():
        target = pin_path(directory, kind)
        if kind == MEMORY:
            os.mkdir(target, 0o700)  # noqa: PTH102
            syscalls.attach_mount(descriptor, target)
        else:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            syscalls.mount(f"/proc/self/fd/{descriptor}", target, "", syscalls.MS_BIND)


def pin_path(directory: object, kind: str) -> str:
    """Returns the path of a pin by the kind of its namespace."""
    return f"{directory}/{kind}"


def _no_namespace(wish: Wish, reason: str) -> DriverError:
    return start_refused(f"{wish.option}: {wish.mode[:128]!r}: {reason}")


def _not_running(wish: Wish, error: OSError | None = None) -> DriverError:
    if wish.mode.startswith(TASK):
        what = f"no task {wish.name[:64]!r} of this allocation runs with this driver"
        advice = (
            'start the other task first: write lifecycle { hook = "prestart" sidecar = true } into'
            " its task block. Nomad repeats this start by the restart policy of the group"
        )
    else:
        what = f"no container {wish.name[:64]!r} runs in containerd's namespace of this driver"
        advice = "start the container first"
    return start_refused(
        f"{wish.option}: {wish.mode[:128]!r}: {what}",
        advice,
        details=str(error or ""),
        recoverable=True,
        code=Code.PRECONDITION,
    )
