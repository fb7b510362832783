"""Detects a network namespace that has lost its address: a task would run without any connection.

Nomad creates an allocation's network once, and a restart of a task does not repair the network. A
namespace without an address is right for a group with mode `none`, but Nomad does not send the mode
to the driver. So an address counts as lost where Nomad names an address, or where the task's last
start had one. The start then fails, and the next allocation gets a new network. Where there are
only signs of a lost address, an event reports them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.files import private_files
from proto.errors import Code, start_refused

if TYPE_CHECKING:
    from actors.model.nomad import NetworkIsolation, TaskConfig
    from actors.provision.netns import Network

FILE = "network"
"""File in the driver's directory of the task, with the addresses of the last start."""
# For tasks with ports in a CNI network, Nomad sets the address in these variables, by port label.
_VARIABLES = "NOMAD_ALLOC_IP_"


def memory(network: Network | None) -> dict[str, str]:
    """Returns the addresses for the task's next start, as a file for `private_files.write`."""
    return {FILE: " ".join(network.addresses)} if network and network.addresses else {}


def check(task: TaskConfig, network: Network | None) -> tuple[str, ...]:
    """Checks the allocation's network for an address. Blocks; changes nothing.

    Returns:
        Notes for the job's author on signs of a lost address.

    Raises:
        DriverError: code PRECONDITION; the address is lost. Nomad may try again.
    """
    if network is None or network.addresses or task.network is None:
        return ()
    earlier = _named(task, task.network) or private_files.read(task.alloc_dir, task.name, FILE)
    if earlier:
        raise start_refused(
            f"network namespace {task.network.path} has lost the allocation's address",
            "no restart repairs the network: stop the allocation (nomad alloc stop), so that Nomad"
            " creates another with a new network",
            details=f"the address was {earlier}, and only loopback addresses are left",
            recoverable=True,
            code=Code.PRECONDITION,
        )
    signs = [f"interface {name}" for name in network.interfaces]
    signs += [f"port {port.label}" for port in task.resources.ports]
    if not signs:
        return ()
    text = (
        f"The allocation's network has {', '.join(signs)}, but no address: the task cannot reach"
        " other hosts"
    )
    return (text,)


def _named(task: TaskConfig, network: NetworkIsolation) -> str:
    if network.address:
        return network.address
    return next((value for name, value in task.env.items() if name.startswith(_VARIABLES)), "")
