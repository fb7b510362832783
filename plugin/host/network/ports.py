"""Ports of this machine for the allocations of a run: choice, check and reservation."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from collections.abc import Iterator

from actors.model.nomad import PortMapping
from plugin.host.job.network import SAME_AS_HOST, GroupNetwork, Port
from proto.errors import Code, DriverError

_DYNAMIC = range(20000, 32001)  # as in a Nomad client
_TRIES = 200


def container_port(port: PortMapping) -> int:
    """Returns the port on which the task listens."""
    return port.to if port.to > 0 else port.value


class HostPorts:
    """The ports of one run.

    A published port of a bridge network stays bound by this process, so no other run or program can
    take the port. The kernel redirects packets for the port before a socket gets the packets. In
    the network of the host, tasks bind the ports.

    Args:
        address: IPv4 address of this machine for the ports.
        hold: False chooses ports without a reservation, also ports of another run: for a preview.
    """

    def __init__(self, address: str, *, hold: bool = True) -> None:
        self._address = address
        self._hold = hold
        self._taken: dict[int, str] = {}
        self._sockets: list[socket.socket] = []

    def choose(self, where: str, network: GroupNetwork) -> tuple[PortMapping, ...]:
        """Chooses the ports of one allocation.

        Args:
            where: name of the allocation in errors.
            network: the network of the group.

        Raises:
            DriverError: a static port is in use, or no dynamic port is free.
        """
        keep = self._hold and network.mode == "bridge"
        static = [port for port in network.ports if port.static]
        chosen = {port.label: self._static(where, port, keep=keep) for port in static}
        for port in network.ports:
            if not port.static:
                chosen[port.label] = self._dynamic(where, port, keep=keep)
        return tuple(chosen[port.label] for port in network.ports)

    def close(self) -> None:
        """Releases all ports."""
        for held in self._sockets:
            held.close()
        self._sockets.clear()

    def _static(self, where: str, port: Port, *, keep: bool) -> PortMapping:
        place = f'{where}: port "{port.label}"'
        other = self._taken.get(port.static)
        if other is not None:
            raise DriverError(
                f"{place}: {port.static} is the port of {other} too",
                resolution='remove static and use ${NOMAD_PORT_…}, or set "count" to 1',
                code=Code.INVALID,
            )
        if keep:
            try:
                self._sockets += self._bound(port.static)
            except OSError as error:
                raise self._not_bound(place, port.static, error) from error
        self._taken[port.static] = place
        return PortMapping(
            label=port.label, value=port.static, to=max(port.to, 0), host_ip=self._address
        )

    def _dynamic(self, where: str, port: Port, *, keep: bool) -> PortMapping:
        place = f'{where}: port "{port.label}"'
        for number in _candidates():
            if number in self._taken:
                continue
            try:
                sockets = self._bound(number)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise self._not_bound(place, number, error) from error
            if keep:
                self._sockets += sockets
            else:
                _close(sockets)
            self._taken[number] = place
            to = number if port.to == SAME_AS_HOST else port.to
            return PortMapping(label=port.label, value=number, to=to, host_ip=self._address)
        raise DriverError(
            f"{place}: no port is free from {_DYNAMIC.start} to {_DYNAMIC.stop - 1}",
            code=Code.EXHAUSTED,
        )

    def _bound(self, number: int) -> list[socket.socket]:
        """Returns bound sockets that hold a port; the sockets never listen."""
        sockets: list[socket.socket] = []
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                sockets.append(socket.socket(socket.AF_INET, kind))
                sockets[-1].bind((self._address, number))
        except OSError:
            _close(sockets)
            raise
        return sockets

    def _not_bound(self, place: str, number: int, error: OSError) -> DriverError:
        if error.errno == errno.EADDRINUSE:
            return DriverError(
                f"{place}: {self._address}:{number} is in use",
                resolution=f"find the program: ss -lnp 'sport = {number}'",
                code=Code.EXHAUSTED,
            )
        return DriverError(
            f"{place}: {self._address}:{number} cannot be bound: {error.strerror}",
            resolution="set --host-ip to an address of this machine",
            code=Code.INVALID,
        )


def _candidates() -> Iterator[int]:
    """Yields random ports, then all ports: two simultaneous runs would try equal ports in order."""
    chance = random.SystemRandom()
    yield from (chance.choice(_DYNAMIC) for _ in range(_TRIES))
    yield from _DYNAMIC


def _close(sockets: list[socket.socket]) -> None:
    for opened in sockets:
        with contextlib.suppress(OSError):
            opened.close()
