"""Rules of iptables that the CNI plugins do not manage.

- Published ports behind a firewall that forwards nothing by default, such as Docker's. CNI's
  firewall plugin allows answers, and packets from an allocation, but no new connection to an
  allocation. The plugin leaves the chain CNI-ADMIN to other rules. Connections from this machine
  need no rule.
- Masquerading of an allocation without a namespace. The bridge plugin finds its rules by the
  address in the namespace. If the namespace is gone, DEL succeeds and leaves the rules.
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


def program() -> str | None:
    """Returns the path of iptables; None if iptables is not installed."""
    return shutil.which("iptables", path=child_process.BASE_ENVIRONMENT["PATH"])


def needed(ports: Sequence[PortMapping]) -> bool:
    """Returns True if other machines may connect to one of the ports."""
    return any(not ipaddress.ip_address(port.host_ip).is_loopback for port in ports)


def allow(alloc_id: str, address: str) -> None:
    """Adds a rule that allows connections to published ports of an allocation.

    Args:
        alloc_id: id of the allocation, which becomes the comment of the rule.
        address: IPv4 address of the allocation.

    Raises:
        DriverError: iptables refuses the rule.
    """
    _iptables("-A", alloc_id, address)


def remove(alloc_id: str, address: str) -> None:
    """Removes the rule of `allow`, if it exists.

    Raises:
        DriverError: iptables fails.
    """
    if short_program.run(_rule("-C", alloc_id, address), timeout_s=_LIMIT_S).status == 0:
        _iptables("-D", alloc_id, address)


def remove_masquerading(network: str, alloc_id: str) -> None:
    """Removes an allocation's jump in POSTROUTING and the target chain, if these exist.

    Raises:
        DriverError: iptables fails.
    """
    comment = f'name: "{network}" id: "{alloc_id}"'
    for line in _nat("-S", "POSTROUTING").splitlines():
        words = shlex.split(line)
        if words[0] == "-A" and comment in words:
            chain = words[words.index("-j") + 1]
            for change in (["-D", *words[1:]], ["-F", chain], ["-X", chain]):
                _nat(*change)


def _nat(*words: str) -> str:
    argv = [program() or "iptables", "-w", _LOCK_S, "-t", "nat", *words]
    ended = short_program.run(argv, timeout_s=_LIMIT_S)
    if ended.status != 0:
        command = f"iptables -t nat {' '.join(words[:2])}"
        raise _failed(f"cannot remove the masquerading of an allocation: {command} failed", ended)
    return ended.stdout


def _rule(action: str, alloc_id: str, address: str) -> list[str]:
    # The rule allows redirected packets, not all packets that are routed to the address.
    redirected = ("-m", "conntrack", "--ctstate", "DNAT")
    rule = ("-d", f"{address}/32", *redirected, "-m", "comment", "--comment", alloc_id)
    return [program() or "iptables", "-w", _LOCK_S, action, _CHAIN, *rule, "-j", "ACCEPT"]


def _iptables(action: str, alloc_id: str, address: str) -> None:
    ended = short_program.run(_rule(action, alloc_id, address), timeout_s=_LIMIT_S)
    if ended.status != 0:
        command = f"iptables {action} {_CHAIN}"
        raise _failed(f"cannot change the rules of published ports: {command} failed", ended)


def _failed(brief: str, ended: short_program.Ended) -> DriverError:
    return DriverError(
        brief,
        details=ended.stderr.strip()[-500:],
        resolution="see the chain in the output of iptables-save",
        code=Code.INTERNAL,
    )
