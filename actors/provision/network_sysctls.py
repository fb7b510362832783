"""Kernel parameters that Docker gives each network that is not the host's: low ports and ping.

With them a user other than root listens on port 80, and pings, without a capability. What they open
is in the task's own network. A network that tasks share is set once: what one of them or a CNI
plugin wrote there stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_PLACE = Path("/proc/sys")
_GID_MAP = Path("/proc/self/gid_map")
_PING = "net.ipv4.ping_group_range"
# By name: what the kernel has in a new network, and what the task gets.
_VALUES = {
    "net.ipv4.ip_unprivileged_port_start": ("1024", "0"),
    _PING: ("1 0", "0 2147483647"),
}
_EVERY_ID = "4294967295"


def for_new_network() -> dict[str, str]:
    """Returns what a network gets that the runtime makes. Reads /proc."""
    return _allowed({name: ours for name, (_, ours) in _VALUES.items() if _current(name)})


def for_this_network() -> dict[str, str]:
    """Returns what is still to be set in the network of the calling thread. Reads /proc."""
    return _allowed(
        {name: ours for name, (kernels, ours) in _VALUES.items() if _current(name) == kernels}
    )


def _current(name: str) -> str:
    """The value with single blanks; empty where the kernel has no such parameter."""
    try:
        return " ".join((_PLACE / name.replace(".", "/")).read_text().split())
    except OSError:
        return ""


def _allowed(found: Mapping[str, str]) -> dict[str, str]:
    """Without the range of groups where this machine is a container that has not all of them."""
    try:
        every = _GID_MAP.read_text().split()[2:] == [_EVERY_ID]
    except OSError:
        every = False
    return {name: value for name, value in found.items() if every or name != _PING}
