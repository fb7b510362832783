"""A network namespace that has lost its address: a task in it would run and reach nobody.

Nomad makes an allocation's network once, and a restart of a task does not repair it. No address is
right where the group's mode is `none`, which the driver is not told. So an address is missed where
Nomad names it or where the task's last start had one; the start then fails, and the allocation's
network is made anew with the next allocation. Where there are only signs of it, an event says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.files import private_files
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from actors.model.nomad import NetworkIsolation, TaskConfig
    from actors.provision.netns import Network

FILE = "network"
"""In the driver's directory of the task: the addresses of its last start."""
# Nomad names the address of its CNI networks to tasks with ports, by the port's label.
_NOMADS = "NOMAD_ALLOC_IP_"


def memory(network: Network | None) -> dict[str, str]:
    """Returns what the task's next start is to know, as a file of `private_files`."""
    return {FILE: " ".join(network.addresses)} if network and network.addresses else {}


def look(task: TaskConfig, network: Network | None) -> tuple[str, ...]:
    """Notes for the user on an address that may be missing. Blocks; changes nothing.

    Raises:
        DriverError: an address is missing; may be tried again.
    """
    if network is None or network.addresses or task.network is None:
        return ()
    had = _named(task, task.network) or private_files.read(task.alloc_dir, task.name, FILE)
    if had:
        raise DriverError(
            f"Error in creating container: network namespace {task.network.path} has lost the"
            " allocation's address",
            details=f"it had {had}, and has none now but loopback's",
            resolution="no restart repairs it: stop the allocation (nomad alloc stop), so that"
            " Nomad makes another with a network of its own",
            recoverable=True,
            code=Code.PRECONDITION,
        )
    signs = [f"interface {name}" for name in network.interfaces]
    signs += [f"port {port.label}" for port in task.resources.ports]
    if not signs:
        return ()
    text = f"The allocation's network has {', '.join(signs)}, but no address: the task is alone"
    return (text,)


def _named(task: TaskConfig, network: NetworkIsolation) -> str:
    if network.address:
        return network.address
    return next((value for name, value in task.env.items() if name.startswith(_NOMADS)), "")
