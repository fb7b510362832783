"""`network` block of a group."""

from __future__ import annotations

from typing import Any

from actors.model.nomad import DnsConfig
from plugin.host.job.block_reader import BlockReader, labelled
from plugin.host.job.hcl_job import merged
from plugin.host.job.keys import DNS, NETWORK, PORT
from plugin.host.job.text import Block
from proto.values import dataclass

MODES = ("host", "bridge", "none")
_MAX_PORT = 65535
SAME_AS_HOST = -1
"""Nomad's value of `to` for a container port equal to the dynamic port of the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A `port` block; `static` is 0 for a dynamic port, `to` is 0 if not set."""

    label: str
    static: int = 0
    to: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupNetwork:
    """Network of a group; with `dns` None a task uses the resolver of the host."""

    mode: str = "host"
    ports: tuple[Port, ...] = ()
    dns: DnsConfig | None = None


def read_network(reader: BlockReader, where: str, blocks: Any) -> GroupNetwork:
    """Reads the network of a group.

    Args:
        reader: collects the problems.
        where: place of the group in problems.
        blocks: the bodies of the `network` blocks.
    """
    where = f"{where}: network"
    if isinstance(blocks, list) and len(blocks) > 1:
        reader.problems.append(f"{where}: appears more than once")
    network = merged(blocks)
    reader.sift(NETWORK, where, network)
    mode = str(network.get("mode") or "host")
    if mode not in MODES:
        reader.problems.append(
            f'{where}: mode "{mode}" needs a Nomad agent; allowed here: {", ".join(MODES)}'
        )
    ports = tuple(_port(reader, where, *pair) for pair in labelled(network.get("port")))
    for label in {port.label for port in ports if sum(p.label == port.label for p in ports) > 1}:
        reader.problems.append(f'{where}: port "{label}" appears more than once')
    if mode == "none" and ports:
        reader.problems.append(f'{where}: mode "none" has no ports')
    return GroupNetwork(mode=mode, ports=ports, dns=_dns(reader, where, network.get("dns")))


def _port(reader: BlockReader, where: str, label: str, body: Block) -> Port:
    where = f'{where}: port "{label}"'
    reader.sift(PORT, where, body)
    static = 0
    if body.get("static") is not None:
        static = reader.number(where, body, "static", 0, (1, _MAX_PORT))
    return Port(
        label=label,
        static=static,
        to=reader.number(where, body, "to", 0, (SAME_AS_HOST, _MAX_PORT)),
    )


def _dns(reader: BlockReader, where: str, blocks: Any) -> DnsConfig | None:
    if not blocks:
        return None
    where, dns = f"{where}: dns", merged(blocks)
    reader.sift(DNS, where, dns)
    return DnsConfig(
        servers=reader.words(where, dns, "servers"),
        searches=reader.words(where, dns, "searches"),
        options=reader.words(where, dns, "options"),
    )
