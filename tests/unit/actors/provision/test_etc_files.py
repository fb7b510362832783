"""Texts of /etc/hosts, /etc/hostname and /etc/resolv.conf."""

from __future__ import annotations

from typing import Any

import pytest

from actors.model.nomad import DnsConfig
from actors.model.settings import TaskOptions
from actors.provision import etc_files
from actors.provision.etc_files import HostTexts, NetworkFiles
from actors.provision.netns import Network
from proto.errors import DriverError

BRIDGE = Network(addresses=("172.26.64.5", "fd00::5"), gateway="172.26.64.1")
RESOLVED = HostTexts(
    hosts="127.0.0.1 localhost\n10.0.0.7 node7 # the node\n",
    resolv="nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n",
    uplink="# from DHCP\nnameserver 10.0.0.2\nnameserver fd00::2\nsearch lan\n",
)


def build(
    network: Network | None = None,
    dns: DnsConfig | None = None,
    host: HostTexts = RESOLVED,
    hostname: str = "web-1",
    **options: Any,
) -> NetworkFiles:
    chosen = TaskOptions(image="x", **options)
    return etc_files.build(chosen, hostname=hostname, network=network, dns=dns, host=host)


def hosts(*args: Any, **more: Any) -> list[str]:
    return build(*args, **more).texts["/etc/hosts"].splitlines()


def resolv(*args: Any, **more: Any) -> list[str]:
    return build(*args, **more).texts["/etc/resolv.conf"].splitlines()


def test_a_task_finds_itself_at_its_addresses() -> None:
    lines = hosts(BRIDGE)
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert lines[-2:] == ["172.26.64.5\tweb-1", "fd00::5\tweb-1"]
    assert build(BRIDGE).texts["/etc/hostname"] == "web-1\n"


def test_without_a_network_it_finds_itself_on_loopback() -> None:
    assert hosts()[-1] == "127.0.1.1\tweb-1"


def test_a_name_with_a_domain_is_found_by_its_short_form_too() -> None:
    assert hosts(hostname="db.corp")[-1] == "127.0.1.1\tdb.corp db"


def test_on_the_hosts_network_the_hosts_names_are_known() -> None:
    lines = hosts(host_network=True, hostname="x")
    assert "10.0.0.7 node7 # the node" in lines
    assert lines[-1] == "127.0.1.1\tx"
    assert hosts(host_network=True, hostname="node7")[-1] == "10.0.0.7 node7 # the node"
    assert "127.0.1.1\tthe" in hosts(host_network=True, hostname="the")


def test_extra_hosts_come_last_with_a_tab() -> None:
    extra = (("postgres", "127.0.1.1"), ("six", "::1"))
    assert hosts(extra_hosts=extra)[-2:] == ["127.0.1.1\tpostgres", "::1\tsix"]


def test_host_gateway_is_the_hosts_address_in_the_tasks_network() -> None:
    extra = (("host", "host-gateway"),)
    assert hosts(BRIDGE, extra_hosts=extra)[-1] == "172.26.64.1\thost"
    assert hosts(extra_hosts=extra, host_network=True)[-1] == "127.0.0.1\thost"
    with pytest.raises(DriverError, match="host-gateway: the task's network has no route"):
        build(extra_hosts=extra)


def test_a_jobs_dns_wins_and_the_host_fills_what_it_leaves_out() -> None:
    dns = DnsConfig(servers=("127.0.0.1", "127.0.0.2"), options=("ndots:2",))
    assert resolv(BRIDGE, dns) == [
        "search lan",
        "nameserver 127.0.0.1",
        "nameserver 127.0.0.2",
        "options ndots:2",
    ]
    assert resolv(None, dns, host_dns=False)[1] == "nameserver 127.0.0.1"
    assert resolv(None, DnsConfig(searches=("internal.corp",)))[0] == "search internal.corp"


def test_the_stub_of_systemd_resolved_is_replaced_by_what_it_asks_itself() -> None:
    found = build(BRIDGE)
    assert found.texts["/etc/resolv.conf"].splitlines() == [
        "search lan",
        "nameserver 10.0.0.2",
        "nameserver fd00::2",
    ]
    assert found.notes == ()


def test_the_host_keeps_its_stub_where_the_task_is_on_its_network() -> None:
    assert resolv(host_network=True) == RESOLVED.resolv.splitlines()
    assert resolv(None) == RESOLVED.resolv.splitlines()


def test_a_server_that_cannot_be_reached_is_told() -> None:
    lonely = HostTexts(resolv="nameserver 127.0.0.1\n")
    assert build(host=lonely, network=BRIDGE).notes[0].startswith("The host's DNS server 127.0.0.1")
    answered = build(host=lonely, network=BRIDGE, dns=DnsConfig(servers=("10.0.0.9",)))
    assert answered.notes == ()
    assert answered.texts["/etc/resolv.conf"] == "nameserver 10.0.0.9\n"


def test_host_dns_false_leaves_the_images_file() -> None:
    assert "/etc/resolv.conf" not in build(host_dns=False).texts


@pytest.mark.parametrize("word", ["1.1.1.1\noptions x", "a b", "", "\x00"])
def test_dns_words_cannot_bring_lines_of_their_own(word: str) -> None:
    with pytest.raises(DriverError, match="is not a single word"):
        build(dns=DnsConfig(servers=(word,)))


def test_a_tasks_dns_options_replace_the_nodes_line_by_line() -> None:
    assert resolv(BRIDGE, dns_servers=("9.9.9.9",), dns_options=("ndots:1",)) == [
        "search lan",
        "nameserver 9.9.9.9",
        "options ndots:1",
    ]
    assert resolv(BRIDGE, dns_searches=("a.b", "c"), host_dns=False)[0] == "search a.b c"


def test_a_dns_block_of_the_group_replaces_a_tasks_dns_options() -> None:
    made = build(BRIDGE, DnsConfig(servers=("1.1.1.1",)), dns_servers=("9.9.9.9",))
    assert "nameserver 1.1.1.1" in made.texts["/etc/resolv.conf"]
    assert "9.9.9.9" not in made.texts["/etc/resolv.conf"]
    assert "dns_servers, dns_search_domains and dns_options have no effect" in made.notes[0]


def test_the_operators_dns_servers_stand_in_for_the_nodes() -> None:
    host = etc_files.asking(RESOLVED, ("9.9.9.9",))
    assert resolv(BRIDGE, host=host) == ["search lan", "nameserver 9.9.9.9"]
    own = DnsConfig(servers=("1.1.1.1",))
    assert resolv(BRIDGE, own, host=host) == ["search lan", "nameserver 1.1.1.1"]
    assert etc_files.asking(RESOLVED, ()) is RESOLVED
