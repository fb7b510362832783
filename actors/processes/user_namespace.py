"""The way of this process into the namespaces of a rootless containerd.

A rootless containerd runs as root of a user namespace, with a mount namespace of its own. The
driver binds mounts for containerd and needs the same namespaces. A process that has changed its
user namespace may not read its own files in /proc, so the program starts again afterwards.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NoReturn

from containerd import daemon_process, syscalls
from proto.errors import Code, DriverError

_ADVICE = (
    "run the program with sudo; or start a rootless containerd as this user, see docs/rootless.md"
)
# The user namespace comes first: its root may enter the others.
_KINDS = {
    "user": syscalls.CLONE_NEWUSER,
    "net": syscalls.CLONE_NEWNET,
    "mnt": syscalls.CLONE_NEWNS,
}
# Directories that a program makes. rootlesskit's --copy-up puts links to the machine's own there.
_OWN = (Path("/run/nomad-driver-containerd"), Path("/run/netns"))


def start_again_inside(address: str) -> NoReturn:
    """Starts this program again, with its arguments, in the namespaces of a containerd.

    Args:
        address: path of containerd's socket outside of the namespaces.

    Raises:
        DriverError: code DENIED; no containerd answers, or it is not this user's.
    """
    try:
        pid = daemon_process.peer(address)
    except OSError as error:
        raise DriverError(
            "containers need root, or a containerd of this user",
            details=f"{address}: {error.strerror or error}",
            resolution=_ADVICE,
            code=Code.DENIED,
        ) from error
    try:
        _enter(pid)
    except OSError as error:
        raise DriverError(
            f"cannot enter the namespaces of the containerd at {address}",
            details=f"pid {pid}: {error.strerror}",
            resolution="start containerd by rootlesskit as this user, see docs/rootless.md",
            code=Code.DENIED,
        ) from error
    words = Path("/proc/self/cmdline").read_bytes().split(b"\0")[:-1]
    os.execv("/proc/self/exe", words)  # noqa: S606 - the same program


def _enter(pid: int) -> None:
    here = Path.cwd()
    with contextlib.ExitStack() as stack:
        opened: list[tuple[int, int]] = []
        for name, kind in _KINDS.items():
            path = Path(f"/proc/{pid}/ns/{name}")
            # A containerd without a network namespace of its own has the machine's.
            if path.readlink() != Path(f"/proc/self/ns/{name}").readlink():
                opened.append((os.open(path, os.O_RDONLY | os.O_CLOEXEC), kind))
                stack.callback(os.close, opened[-1][0])
        for descriptor, kind in opened:
            syscalls.setns(descriptor, kind)
    with contextlib.suppress(OSError):  # the directory may be hidden there
        os.chdir(here)
    for link in _OWN:
        if link.is_symlink():
            with contextlib.suppress(OSError):
                link.unlink()
