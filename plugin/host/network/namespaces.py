"""Network namespaces of allocations, by the program `netns_program.py`. All functions block."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from actors.processes import child_process, short_program
from actors.provision import alloc_networks
from proto.errors import Code, DriverError

_PROGRAM = child_process.ROOT / "plugin" / "host" / "network" / "netns_program.py"
_LIMIT_S = 60.0


def path(alloc_id: str) -> str:
    """Returns the path of an allocation's namespace, as in a Nomad client."""
    return f"{alloc_networks.DIRECTORY}/{alloc_id}"


def add(names: Sequence[str]) -> None:
    """Creates namespaces with only the loopback interface, which is up.

    Raises:
        DriverError: a namespace cannot be created; earlier namespaces stay.
    """
    _run("add", names, "cannot create a network namespace")


def remove(names: Sequence[str]) -> None:
    """Removes namespaces; a missing namespace is no failure.

    Raises:
        DriverError: a namespace cannot be removed.
    """
    _run("remove", names, "cannot remove a network namespace")


def remove_link(name: str) -> None:
    """Removes a network interface of this process's namespace; a missing one is no failure.

    Raises:
        DriverError: the interface cannot be removed.
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
            resolution="network namespaces need root, and a kernel with network namespaces",
            code=Code.UNAVAILABLE,
        )
