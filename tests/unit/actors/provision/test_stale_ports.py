"""Port redirections of allocations which have ended."""

from __future__ import annotations

import shlex

from actors.provision import stale_ports

DEAD, ALIVE = "0d1b8f6e-dead", "0d1b8f6e-alive"
SAVED = rf"""
*nat
:CNI-HOSTPORT-DNAT - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-DN-1 -s 172.26.64.0/20 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
-A CNI-DN-1 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.26.64.5:80
-A CNI-DN-2 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.26.64.6:80
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"nomad\" id: \"{DEAD}\"" -m multiport --dports 8080,81 -j CNI-DN-1
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"nomad\" id: \"{ALIVE}\"" -m multiport --dports 8080 -j CNI-DN-2
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"podman\" id: \"x\"" -m multiport --dports 8080 -j CNI-DN-3
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"nomad" -j CNI-DN-3
-A CNI-HOSTPORT-DNAT -p tcp --comment
-A broken "quote
COMMIT
"""  # noqa: E501 - iptables-save folds no lines


def test_a_rule_of_an_allocation_that_is_gone_is_found_with_its_remedy() -> None:
    (stale,) = stale_ports.find(SAVED, lambda alloc: alloc == ALIVE)
    assert (stale.ports, stale.protocol, stale.alloc_id) == ("8080,81", "tcp", DEAD)
    assert stale.target == "172.26.64.5:80"
    words = shlex.split(stale.advice)
    assert words[:5] == ["iptables", "-t", "nat", "-D", "CNI-HOSTPORT-DNAT"]
    assert f'dnat name: "nomad" id: "{DEAD}"' in words


def test_rules_of_allocations_that_live_are_left_alone() -> None:
    assert list(stale_ports.find(SAVED, lambda _: True)) == []
    assert list(stale_ports.find("", lambda _: False)) == []
