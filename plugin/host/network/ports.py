"""Ports of this machine for the allocations of a run: chosen, checked, and kept."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from collections.abc import Iterator

from actors.model.nomad import PortMapping
from plugin.host.job.network import SAME_AS_HOST, GroupNetwork, Port
from proto.errors import Code, DriverError

_DYNAMIC = range(20000, 32001)  # as a Nomad client's
_TRIES = 200


def inside(port: PortMapping) -> int:
    """The port that the task listens on."""
    return port.to if port.to > 0 else port.value


class HostPorts:
    """The ports of one run.

    A port that is published into a bridge network stays bound here, so that neither another run
    nor another program takes it; packets for it are redirected before they meet the socket.
    In the host's own network the task binds its ports itself.

    Args:
        address: of this machine; where the ports are.
        hold: False for a look at what they could be, also while another run has them.
    """

    def __init__(self, address: str, *, hold: bool = True) -> None:
        self._address = address
        self._hold = hold
        self._taken: dict[int, str] = {}
        self._kept: list[socket.socket] = []

    def choose(self, where: str, network: GroupNetwork) -> tuple[PortMapping, ...]:
        """The ports of one allocation, the static ones first; where names it in errors.

        Raises:
            DriverError: a static port is in use, or no dynamic one is free.
        """
        keep = self._hold and network.mode == "bridge"
        static = [port for port in network.ports if port.static]
        chosen = {port.label: self._static(where, port, keep=keep) for port in static}
        for port in network.ports:
            if not port.static:
                chosen[port.label] = self._dynamic(where, port, keep=keep)
        return tuple(chosen[port.label] for port in network.ports)

    def close(self) -> None:
        """Gives them all back."""
        for kept in self._kept:
            kept.close()
        self._kept.clear()

    def _static(self, where: str, port: Port, *, keep: bool) -> PortMapping:
        what = f'{where}: port "{port.label}"'
        other = self._taken.get(port.static)
        if other is not None:
            raise DriverError(
                f"{what}: {port.static} is the port of {other} too",
                resolution='leave static away and use ${NOMAD_PORT_…}, or set "count" to 1',
                code=Code.INVALID,
            )
        if keep:
            try:
                self._kept += self._bound(port.static)
            except OSError as error:
                raise self._not_bound(what, port.static, error) from error
        self._taken[port.static] = what
        return PortMapping(
            label=port.label, value=port.static, to=max(port.to, 0), host_ip=self._address
        )

    def _dynamic(self, where: str, port: Port, *, keep: bool) -> PortMapping:
        what = f'{where}: port "{port.label}"'
        for number in _candidates():
            if number in self._taken:
                continue
            try:
                sockets = self._bound(number)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise self._not_bound(what, number, error) from error
            if keep:
                self._kept += sockets
            else:
                _close(sockets)
            self._taken[number] = what
            to = number if port.to == SAME_AS_HOST else port.to
            return PortMapping(label=port.label, value=number, to=to, host_ip=self._address)
        raise DriverError(
            f"{what}: no port is free from {_DYNAMIC.start} to {_DYNAMIC.stop - 1}",
            code=Code.EXHAUSTED,
        )

    def _bound(self, number: int) -> list[socket.socket]:
        """Sockets that hold a port; nobody ever listens on them."""
        sockets: list[socket.socket] = []
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                sockets.append(socket.socket(socket.AF_INET, kind))
                sockets[-1].bind((self._address, number))
        except OSError:
            _close(sockets)
            raise
        return sockets

    def _not_bound(self, what: str, number: int, error: OSError) -> DriverError:
        if error.errno == errno.EADDRINUSE:
            return DriverError(
                f"{what}: {self._address}:{number} is in use",
                resolution=f"see who has it: ss -lnp 'sport = {number}'",
                code=Code.EXHAUSTED,
            )
        return DriverError(
            f"{what}: {self._address}:{number} cannot be taken: {error.strerror}",
            resolution="--host-ip takes an address of this machine",
            code=Code.INVALID,
        )


def _candidates() -> Iterator[int]:
    """Some at random, as two runs at a time would else try the same, and then all."""
    chance = random.SystemRandom()
    yield from (chance.choice(_DYNAMIC) for _ in range(_TRIES))
    yield from _DYNAMIC


def _close(sockets: list[socket.socket]) -> None:
    for opened in sockets:
        with contextlib.suppress(OSError):
            opened.close()
