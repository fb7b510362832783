"""Network namespaces of allocations, made and removed by `netns_program.py`. All calls block."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from actors.processes import child_process, short_program
from proto.errors import Code, DriverError

DIRECTORY = "/var/run/netns"
_PROGRAM = child_process.ROOT / "plugin" / "host" / "network" / "netns_program.py"
_LIMIT_S = 60.0


def path(alloc_id: str) -> str:
    """Returns where the namespace of an allocation is, as a Nomad client names it."""
    return f"{DIRECTORY}/{alloc_id}"


def is_one(place: str) -> bool:
    """Whether a network namespace is mounted there: a plain file is what an unmount leaves."""
    with contextlib.suppress(OSError):
        # All namespaces are of one file system, and of no other.
        return os.stat(place).st_dev == os.stat("/proc/self/ns/net").st_dev  # noqa: PTH116
    return False


def add(names: Sequence[str]) -> None:
    """Makes namespaces with nothing in them but loopback, which is up.

    Raises:
        DriverError: one could not be made; those before it are there.
    """
    _run("add", names, "cannot make a network namespace")


def remove(names: Sequence[str]) -> None:
    """Removes namespaces; one that is not there is no failure.

    Raises:
        DriverError: one could not be removed.
    """
    _run("remove", names, "cannot remove a network namespace")


def remove_link(name: str) -> None:
    """Removes a network interface of the namespace that this process is in.

    Raises:
        DriverError: it is there and could not be removed.
    """
    _run("remove-link", [name], f"cannot remove the network interface {name}")


def _run(action: str, names: Sequence[str], failed: str) -> None:
    ended = short_program.run(
        [sys.executable, "-I", str(_PROGRAM), action, *names], timeout_s=_LIMIT_S
    )
    if ended.status != 0:
        raise DriverError(
            failed,
            details=ended.stderr.strip()[-500:],
            resolution="it needs root, and a kernel with network namespaces",
            code=Code.UNAVAILABLE,
        )
