"""Rules of iptables beside the rules of the CNI plugins.

Published ports pass a firewall that forwards nothing by itself, such as Docker's. CNI's firewall
plugin lets answers and an allocation's own packets pass, but no new connection to the allocation;
CNI-ADMIN is the plugin's chain for rules of others. Connections of this machine need no rule.

The bridge plugin finds an allocation's masquerading rules by the address in the namespace alone.
If the namespace is already gone, the plugin gets an empty name, its DEL succeeds and leaves the
rules; the rules are removed here.
"""

from __future__ import annotations

import ipaddress
import shlex
import shutil
from collections.abc import Sequence

from actors.model.nomad import PortMapping
from actors.processes import child_process, short_program
from proto.errors import Code, DriverError

_CHAIN = "CNI-ADMIN"
_LIMIT_S = 30.0
_LOCK_S = "10"


def find() -> str | None:
    """The path of iptables."""
    return shutil.which("iptables", path=child_process.BASE_ENVIRONMENT["PATH"])


def needed(ports: Sequence[PortMapping]) -> bool:
    """Returns whether other machines are to reach one of these."""
    return any(not ipaddress.ip_address(port.host_ip).is_loopback for port in ports)


def allow(alloc_id: str, address: str) -> None:
    """Lets connections to published ports of an allocation through.

    Raises:
        DriverError: iptables does not take the rule.
    """
    _iptables("-A", alloc_id, address)


def forget(alloc_id: str, address: str) -> None:
    """Takes the rule away; one that is not there is no failure.

    Raises:
        DriverError: iptables does not.
    """
    if short_program.run(_rule("-C", alloc_id, address), timeout_s=_LIMIT_S).status == 0:
        _iptables("-D", alloc_id, address)


def forget_masquerading(network: str, alloc_id: str) -> None:
    """Takes away an allocation's jump in POSTROUTING and the chain that it leads to, if any.

    Raises:
        DriverError: iptables does not.
    """
    comment = f'name: "{network}" id: "{alloc_id}"'
    for line in _nat("-S", "POSTROUTING").splitlines():
        words = shlex.split(line)
        if words[0] == "-A" and comment in words:
            chain = words[words.index("-j") + 1]
            for change in (["-D", *words[1:]], ["-F", chain], ["-X", chain]):
                _nat(*change)


def _nat(*words: str) -> str:
    argv = [find() or "iptables", "-w", _LOCK_S, "-t", "nat", *words]
    ended = short_program.run(argv, timeout_s=_LIMIT_S)
    if ended.status != 0:
        raise _refused(f"iptables -t nat {' '.join(words[:2])}", "the allocation's address", ended)
    return ended.stdout


def _rule(action: str, alloc_id: str, address: str) -> list[str]:
    # Only what was redirected to a port of the job, not all that is routed to its address.
    redirected = ("-m", "conntrack", "--ctstate", "DNAT")
    rule = ("-d", f"{address}/32", *redirected, "-m", "comment", "--comment", alloc_id)
    return [find() or "iptables", "-w", _LOCK_S, action, _CHAIN, *rule, "-j", "ACCEPT"]


def _iptables(action: str, alloc_id: str, address: str) -> None:
    ended = short_program.run(_rule(action, alloc_id, address), timeout_s=_LIMIT_S)
    if ended.status != 0:
        raise _refused(f"iptables {action} {_CHAIN}", "the published ports", ended)


def _refused(command: str, what: str, ended: short_program.Ended) -> DriverError:
    return DriverError(
        f"{command}: {what}",
        details=ended.stderr.strip()[-500:],
        resolution="see what iptables-save says of this chain",
        code=Code.INTERNAL,
    )
