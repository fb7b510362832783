"""Builds the texts of a task's /etc/hosts, /etc/hostname and /etc/resolv.conf.

The functions are pure. Every task has its own files, as with Docker: no other task and no process
of the node reads a change that the task makes, and a later change on the node does not reach a
running task.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from actors.model.nomad import DnsConfig
from actors.provision.netns import Network
from proto.errors import start_refused
from proto.values import dataclass

if TYPE_CHECKING:
    from actors.model.settings import TaskOptions

HOST_GATEWAY = "host-gateway"
_LOCALHOST: tuple[str, ...] = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "ff00::0\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)
# Debian's address for the name of a host that has no address in a network.
_NAME_LOOPBACK = "127.0.1.1"
WORD = re.compile(r"[!-~]+")
"""A word of /etc/resolv.conf."""
_BLOCK_WINS = (
    "dns_servers, dns_search_domains and dns_options have no effect: the group's network has a dns"
    " block, which replaces all three, as with docker"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTexts:
    """The node's files. uplink is systemd-resolved's list of servers; empty without resolved."""

    hosts: str = ""
    resolv: str = ""
    uplink: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFiles:
    """Texts by path in the container, and notes for the job's author."""

    texts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def build(
    options: TaskOptions,
    *,
    hostname: str,
    network: Network | None,
    dns: DnsConfig | None,
    host: HostTexts,
) -> NetworkFiles:
    """Builds the files of a task.

    Args:
        options: the job's options.
        hostname: the task's host name.
        network: None where Nomad created no namespace for the allocation.
        dns: the group's `dns` block.
        host: the node's files.

    Raises:
        DriverError: code INVALID; extra_hosts or the DNS settings are impossible here.
    """
    texts = {
        "/etc/hosts": _hosts(options, hostname, network, host.hosts),
        "/etc/hostname": f"{hostname}\n",
    }
    resolv, notes = _resolv(options, network, dns, host)
    if resolv is not None:
        texts["/etc/resolv.conf"] = resolv
    return NetworkFiles(texts=texts, notes=notes)


def _hosts(options: TaskOptions, hostname: str, network: Network | None, host: str) -> str:
    lines = host.splitlines() if options.host_network else list(_LOCALHOST)
    short = hostname.partition(".")[0]
    own = hostname if short == hostname else f"{hostname} {short}"
    addresses = network.addresses if network else ()
    known = {name for line in lines for name in line.partition("#")[0].split()[1:]}
    if hostname not in known:
        lines += [f"{address}\t{own}" for address in addresses or (_NAME_LOOPBACK,)]
    for name, address in options.extra_hosts:
        lines.append(f"{_address(address, options, network)}\t{name}")
    return "\n".join(lines) + "\n"


def _address(written: str, options: TaskOptions, network: Network | None) -> str:
    if written != HOST_GATEWAY:
        return written
    if options.host_network:
        return "127.0.0.1"
    if network is None or not network.gateway:
        raise start_refused(
            "extra_hosts: host-gateway: the task's network has no route to the host",
            'give the group network { mode = "bridge" }, or use host_network',
        )
    return network.gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resolver:
    """The settings of a resolv.conf(5)."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> _Resolver:
        settings: dict[str, tuple[str, ...]] = {}
        servers: list[str] = []
        for line in text.splitlines():
            words = line.split()
            if not words or words[0][0] in "#;":
                continue
            if words[0] == "nameserver" and len(words) > 1:
                servers.append(words[1])
            else:  # the last line counts, and `domain` is a search list with one entry
                settings["search" if words[0] == "domain" else words[0]] = tuple(words[1:])
        return cls(
            servers=tuple(servers),
            searches=settings.get("search", ()),
            options=settings.get("options", ()),
        )

    def text(self) -> str:
        lines = [f"search {' '.join(self.searches)}"] if self.searches else []
        lines += [f"nameserver {server}" for server in self.servers]
        lines += [f"options {' '.join(self.options)}"] if self.options else []
        return "\n".join(lines) + "\n"


def asking(host: HostTexts, servers: tuple[str, ...]) -> HostTexts:
    """Returns the node's files with other DNS servers, which the operator has chosen for tasks.

    Args:
        host: the node's files.
        servers: addresses of the servers; empty: those of the node.
    """
    if not servers:
        return host
    node = _Resolver.parse(host.uplink or host.resolv)
    chosen = _Resolver(servers=servers, searches=node.searches, options=node.options)
    return dataclasses.replace(host, resolv=chosen.text(), uplink="")


def _resolv(
    options: TaskOptions, network: Network | None, dns: DnsConfig | None, host: HostTexts
) -> tuple[str | None, tuple[str, ...]]:
    """Merges the job's DNS over the node's; returns None where the image's file is to stay."""
    own = _dns_of(options)
    unused = (_BLOCK_WINS,) if dns and own else ()
    dns = dns or own
    if dns is None and not (options.host_dns or options.host_network):
        return None, ()
    separate = network is not None and not options.host_network
    text, notes = _reachable(host) if separate else (host.resolv, ())
    if dns is None:
        return text, notes
    for word in (*dns.servers, *dns.searches, *dns.options):
        if not WORD.fullmatch(word):
            raise start_refused(f"network.dns: {word[:64]!r} is not a single word")
    base = _Resolver.parse(text)
    merged = _Resolver(
        servers=dns.servers or base.servers,
        searches=dns.searches or base.searches,
        options=dns.options or base.options,
    )
    return merged.text(), unused if dns.servers else (*unused, *notes)


def _dns_of(options: TaskOptions) -> DnsConfig | None:
    """Returns the DNS settings of the task's config; None without a setting."""
    own = DnsConfig(
        servers=options.dns_servers, searches=options.dns_searches, options=options.dns_options
    )
    return own if own.servers or own.searches or own.options else None


def _reachable(host: HostTexts) -> tuple[str, tuple[str, ...]]:
    """Returns the node's DNS settings as a task in another network can use them, and notes.

    A server on loopback, as systemd-resolved's 127.0.0.53, is unreachable from another network.
    systemd-resolved keeps a file with the servers that it asks itself.
    """
    if not _loopback(_Resolver.parse(host.resolv).servers):
        return host.resolv, ()
    chosen = _Resolver.parse(host.uplink or host.resolv)
    loopback = _loopback(chosen.servers)
    servers = tuple(server for server in chosen.servers if server not in loopback)
    if not servers:
        note = (
            f"The host's DNS server {', '.join(loopback)} cannot be reached from the task's"
            " network: give the group network { dns { servers = [...] } }"
        )
        return host.resolv, (note,)
    return (
        _Resolver(servers=servers, searches=chosen.searches, options=chosen.options).text(),
        (),
    )


def _loopback(servers: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(server for server in servers if _is_loopback(server))


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False
