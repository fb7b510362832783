"""Finds iptables rules that redirect ports to allocations that are gone.

CNI's portmap plugin writes a rule for each published port, with the allocation's id in a comment. A
rule can outlive the allocation, for example when a restart of the firewall restores saved rules.
The first matching rule wins, so a stale rule takes the port from the next allocation.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Callable, Iterator

from actors.processes import child_process, short_program
from proto.errors import DriverError
from proto.values import dataclass

_CHAIN = "CNI-HOSTPORT-DNAT"
_NETWORKS = ("nomad", "containerd-driver")
_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StalePort:
    """A rule without an allocation.

    target: the address that the ports are redirected to.
    advice: the command that removes the rule.
    """

    ports: str
    protocol: str
    target: str
    alloc_id: str
    advice: str


def rules() -> str:
    """Returns iptables-save's rules of this network namespace; empty on a failure. Blocks."""
    path = shutil.which("iptables-save", path=child_process.BASE_ENVIRONMENT["PATH"])
    if path is None:
        return ""
    try:
        ended = short_program.run([path, "-t", "nat"], timeout_s=_LIMIT_S)
    except DriverError:
        return ""
    return ended.stdout if ended.status == 0 else ""


def find(saved: str, is_alive: Callable[[str], bool]) -> Iterator[StalePort]:
    """Yields the rules whose allocation is gone.

    Args:
        saved: the output of iptables-save.
        is_alive: returns whether an allocation still has its network namespace.
    """
    lines = [_words(line) for line in saved.splitlines() if line.startswith("-A ")]
    targets = {
        words[1]: _after(words, "--to-destination")
        for words in lines
        if "--to-destination" in words
    }
    for words in lines:
        alloc_id = _allocation(_after(words, "--comment"))
        if words[1:2] == [_CHAIN] and alloc_id and not is_alive(alloc_id):
            yield StalePort(
                ports=_after(words, "--dports") or _after(words, "--dport"),
                protocol=_after(words, "-p"),
                target=targets.get(_after(words, "-j"), "nowhere"),
                alloc_id=alloc_id,
                advice=shlex.join(["iptables", "-t", "nat", "-D", *words[1:]]),
            )


def _words(line: str) -> list[str]:
    with contextlib.suppress(ValueError):
        return shlex.split(line)
    return []


def _after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1] if option in words[:-1] else ""


def _allocation(comment: str) -> str:
    """Returns the allocation in portmap's comment: dnat name: "NETWORK" id: "ALLOCATION"."""
    words = comment.split('"')
    ours = len(words) > 3 and words[0] == "dnat name: " and words[1] in _NETWORKS  # noqa: PLR2004
    return words[3] if ours else ""
