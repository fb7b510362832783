"""Shims of containers: their sockets by the files of containerd, their processes by /proc.

containerd writes a shim's address into the task's bundle: 1.x into the file `address`, 2.x into
`bootstrap.json` with version 2 or 3.

The process table is the only place that shows a shim that containerd has forgotten. A call of a
client that dies is cancelled. In the middle of a Create or a Delete, containerd may then drop a
task from its metadata and leave the shim and its bundle, and no later call names them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from containerd.api.records import ShimAddress
from proto.values import dataclass

_TASKS = "io.containerd.runtime.v2.task"
_LIMIT_BYTES = 4096
_PREFIX = "containerd-shim"
_COMMANDS = {"start", "delete"}
_UNIX = "unix://"
_UNIX_FIELDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ShimProcess:
    """A process of a shim's program.

    bundle is the process's working directory, the bundle of the shim's first container. containerd
    removes a bundle last; the kernel then adds a word to the path.
    is_command is True for a short-lived process: the start of a shim, or the clean-up after a shim.
    """

    pid: int
    id: str
    bundle: Path
    is_command: bool


def find_processes(address: str, namespace: str, ids: Collection[str]) -> list[ShimProcess]:
    """Returns the shim processes that containerd at an address has started for some containers.

    Blocks for a moment.
    """
    wanted = {"-address": address, "-namespace": namespace}
    processes: list[ShimProcess] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            arguments = _arguments(entry)
            own_id = _shim_id(arguments, wanted)
            if own_id and own_id in ids:
                processes.append(
                    ShimProcess(
                        pid=int(entry.name),
                        id=own_id,
                        bundle=(entry / "cwd").readlink(),
                        is_command=arguments[-1] in _COMMANDS,
                    )
                )
    return processes


def serves_others(shim: ShimProcess, container_id: str) -> bool:
    """Returns whether a shim holds other containers than one: their bundles name the shim's socket.

    Blocks for a moment.
    """
    try:
        sockets = _sockets(Path("/proc", str(shim.pid)))
        others = [entry for entry in shim.bundle.parent.iterdir() if entry.name != container_id]
    except OSError:  # the shim has ended
        return False
    addresses = (_read(directory) for directory in others)
    return any(named is not None and named.address in sockets for named in addresses)


def accepts(shim: ShimAddress) -> bool:
    """Returns whether a shim accepts connections; does not block."""
    path, is_path = shim.address.removeprefix(_UNIX), shim.address.startswith(_UNIX)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            connection.connect(path if is_path else f"\0{path}")
        except BlockingIOError:  # many connections wait for a living shim
            return True
        except OSError:
            return False
    return True


def _sockets(process: Path) -> set[str]:
    """Returns the addresses of a process's unix sockets, in containerd's form."""
    links = [_link(entry) for entry in (process / "fd").iterdir()]
    inodes = {link.removeprefix("socket:[").removesuffix("]") for link in links}
    addresses: set[str] = set()
    for line in (process / "net/unix").read_text(errors="replace").splitlines():
        # Num, RefCount, Protocol, Flags, Type, St, Inode, and the path of a bound socket.
        fields = line.split(maxsplit=7)
        if len(fields) == _UNIX_FIELDS and fields[6] in inodes:
            path = fields[7]
            addresses.add(path.removeprefix("@") if path.startswith("@") else _UNIX + path)
    return addresses


def _link(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:  # closed meanwhile
        return ""


def kill(shim: ShimProcess) -> None:
    """Sends SIGKILL, unless the pid belongs to another process by now."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(shim.pid)
        try:
            if (Path(f"/proc/{shim.pid}") / "cwd").readlink() == shim.bundle:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


def _arguments(process: Path) -> list[str]:
    text = (process / "cmdline").read_bytes().decode(errors="surrogateescape")
    return text.rstrip("\0").split("\0")


def _shim_id(arguments: Sequence[str], wanted: dict[str, str]) -> str:
    """Returns the id that a shim was started with; empty for other processes."""
    if not os.path.basename(arguments[0]).startswith(_PREFIX):  # noqa: PTH119 - of every process
        return ""
    options = dict(itertools.pairwise(arguments))
    if any(options.get(option) != value for option, value in wanted.items()):
        return ""
    return options.get("-id", "")


def find_address(
    containerd_address: str, namespace: str, container_id: str, pid: int
) -> ShimAddress | None:
    """Returns the address of a task's shim; None if no bundle names a ttrpc socket.

    Args:
        containerd_address: containerd's socket, usually beside containerd's state directory.
        namespace: containerd's namespace.
        container_id: the container.
        pid: the task's process, a child of the shim. The shim's working directory is the bundle.
    """
    for directory in _bundles(containerd_address, namespace, container_id, pid):
        address = _read(directory)
        if address is not None:
            return address
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
    # A shim of several containers works in the bundle of its first container.
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
