"""Inspects a network namespace: the addresses of its interfaces, and the default gateway.

A thread enters the namespace, reads, and ends there. So no other thread of the plugin is ever in
another network.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from actors.model.nomad import NetworkOverride, TaskConfig
from actors.provision import network_sysctls
from containerd import syscalls
from proto.errors import Code, DriverError, start_refused
from proto.values import dataclass

_ROUTES = Path("/proc/thread-self/net/route")
_ROUTE_FIELDS = 8
_ETHERNET = len("00:00:00:00:00:00")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The facts of a network namespace.

    addresses: reachable from other hosts, IPv4 before IPv6.
    interfaces: the names of interfaces with a hardware address.
    gateway: the IPv4 gateway; empty without a default route.
    sysctl: kernel parameters that the namespace should get.
    """

    addresses: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    gateway: str = ""
    sysctl: Mapping[str, str] = field(default_factory=dict)


def inspect(path: str) -> Network:
    """Returns the present facts of the network namespace at a path. Blocks for a moment.

    Raises:
        DriverError: code PRECONDITION; no network namespace is at the path.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return syscalls.in_a_thread_of_its_own(lambda: _inside(descriptor))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DriverError(
            f"cannot enter the allocation's network namespace {path[:256]}",
            details=error.strerror or str(error),
            resolution="Nomad creates the namespace before the tasks start; see the agent's log for"
            " the allocation's network",
            recoverable=True,
            code=Code.PRECONDITION,
        ) from error


def _inside(descriptor: int) -> Network:
    import psutil  # noqa: PLC0415 - a megabyte, needed only on nodes with such networks

    syscalls.setns(descriptor, syscalls.CLONE_NEWNET)
    interfaces = psutil.net_if_addrs()
    hardware = [
        name
        for name, entries in interfaces.items()
        if any(_is_hardware(entry.family, entry.address) for entry in entries)
    ]
    addresses = [
        address
        for entries in interfaces.values()
        for entry in entries
        if (address := _reachable(entry.family, entry.address))
    ]
    addresses.sort(key=lambda address: ":" in address)  # stable: interfaces in the kernel's order
    return Network(
        addresses=tuple(addresses),
        interfaces=tuple(hardware),
        gateway=gateway(_ROUTES.read_text()),
        sysctl=network_sysctls.for_this_network(),
    )


def _is_hardware(family: int, text: str) -> bool:
    """Returns whether an address is Ethernet's; loopback has zeros, tunnels are shorter."""
    return family == socket.AF_PACKET and len(text) == _ETHERNET and text.strip("0:") != ""


def _reachable(family: int, text: str) -> str:
    if family not in {socket.AF_INET, socket.AF_INET6}:
        return ""
    address = ipaddress.ip_address(text.partition("%")[0])
    return "" if address.is_loopback or address.is_link_local else str(address)


def gateway(routes: str) -> str:
    """Returns the default route's gateway from a text of /proc/net/route; empty without a route."""
    for line in routes.splitlines()[1:]:
        fields = line.split()
        # Destination, gateway and mask are numbers in the host's byte order, in hexadecimal.
        if len(fields) >= _ROUTE_FIELDS and fields[1] == fields[7] == "00000000":
            return socket.inet_ntoa(struct.pack("=I", int(fields[2], 16)))
    return ""


def override(
    task: TaskConfig, network: Network | None, *, ipv6: bool = False
) -> NetworkOverride | None:
    """Returns the task's own address, for services with `address_mode = "driver"`.

    The address is not advertised by default: other services of the job keep the node's address and
    port.

    Args:
        task: Nomad's description of the task.
        network: the task's network; None without a network of its own.
        ipv6: True returns the IPv6 address.

    Raises:
        DriverError: code INVALID; the network has no IPv6 address.
    """
    addresses = network.addresses if network else ()
    if ipv6:
        addresses = tuple(address for address in addresses if ":" in address)
        if not addresses:
            raise start_refused(
                "advertise_ipv6_address: the task's network has no IPv6 address",
                'give the group a network with IPv6, such as network { mode = "cni/NAME" }',
            )
    if not addresses:
        return None
    ports = {port.label: port.to if port.to > 0 else port.value for port in task.resources.ports}
    return NetworkOverride(addr=addresses[0], auto_advertise=False, port_map=ports)
