"""What a network namespace has: the addresses of its interfaces, and the gateway of its route out.

Read by a thread that enters the namespace and ends there, so that none of the plugin's own threads
is ever in another network.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from actors.provision import network_sysctls
from containerd import syscalls
from proto.errors import Code, DriverError

_ROUTES = Path("/proc/thread-self/net/route")
_ROUTE_FIELDS = 8
_ETHERNET = len("00:00:00:00:00:00")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Addresses that others can reach, IPv4 before IPv6, and the IPv4 gateway; "" is none.

    interfaces are the names of those with a hardware address; sysctl are kernel parameters that it
    should get.
    """

    addresses: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    gateway: str = ""
    sysctl: Mapping[str, str] = field(default_factory=dict)


def look(path: str) -> Network:
    """Returns what the namespace behind a path has now. Blocks for a moment.

    Raises:
        DriverError: there is no network namespace at the path.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return syscalls.in_a_thread_of_its_own(lambda: _inside(descriptor))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DriverError(
            f"the allocation's network namespace {path[:256]} cannot be entered",
            details=error.strerror or str(error),
            resolution="Nomad makes it before its tasks start; see the agent's log for its network",
            recoverable=True,
            code=Code.PRECONDITION,
        ) from error


def _inside(descriptor: int) -> Network:
    import psutil  # noqa: PLC0415 - a megabyte that only nodes with such networks need

    syscalls.setns(descriptor, syscalls.CLONE_NEWNET)
    interfaces = psutil.net_if_addrs()
    hardware = [
        name
        for name, entries in interfaces.items()
        if any(_is_hardware(entry.family, entry.address) for entry in entries)
    ]
    found = [
        address
        for entries in interfaces.values()
        for entry in entries
        if (address := _reachable(entry.family, entry.address))
    ]
    found.sort(key=lambda address: ":" in address)  # stable: interfaces in the kernel's order
    return Network(
        addresses=tuple(found),
        interfaces=tuple(hardware),
        gateway=gateway(_ROUTES.read_text()),
        sysctl=network_sysctls.for_this_network(),
    )


def _is_hardware(family: int, text: str) -> bool:
    """Returns whether an address is of Ethernet; loopback has zeros, a tunnel a shorter one."""
    return family == socket.AF_PACKET and len(text) == _ETHERNET and text.strip("0:") != ""


def _reachable(family: int, text: str) -> str:
    if family not in {socket.AF_INET, socket.AF_INET6}:
        return ""
    address = ipaddress.ip_address(text.partition("%")[0])
    return "" if address.is_loopback or address.is_link_local else str(address)


def gateway(routes: str) -> str:
    """The gateway of the default route in a text of /proc/net/route; "" where there is none."""
    for line in routes.splitlines()[1:]:
        fields = line.split()
        # Destination, gateway and mask are numbers in the host's byte order, in hexadecimal.
        if len(fields) >= _ROUTE_FIELDS and fields[1] == fields[7] == "00000000":
            return socket.inet_ntoa(struct.pack("=I", int(fields[2], 16)))
    return ""
