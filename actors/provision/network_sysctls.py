"""Kernel parameters for low ports and ping, which Docker sets in each network but the host's.

With these parameters a user other than root can listen on port 80, and can ping, without a
capability. They open only the task's own network. In a network that several tasks share, a
parameter with another value than the kernel's default stays: a task or a CNI plugin wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_PARAMETERS = Path("/proc/sys")
_GID_MAP = Path("/proc/self/gid_map")
_PING = "net.ipv4.ping_group_range"
# By name: the kernel's value in a new network, and the task's value.
_VALUES = {
    "net.ipv4.ip_unprivileged_port_start": ("1024", "0"),
    _PING: ("1 0", "0 2147483647"),
}
_EVERY_ID = "4294967295"


def for_new_network() -> dict[str, str]:
    """Returns the parameters for a network that the runtime creates. Reads /proc."""
    return _allowed({name: ours for name, (_, ours) in _VALUES.items() if _current(name)})


def for_this_network() -> dict[str, str]:
    """Returns the parameters still to be set in the calling thread's network. Reads /proc."""
    return _allowed(
        {name: ours for name, (kernels, ours) in _VALUES.items() if _current(name) == kernels}
    )


def _current(name: str) -> str:
    """Returns the value with single blanks; empty where the kernel has no such parameter."""
    try:
        return " ".join((_PARAMETERS / name.replace(".", "/")).read_text().split())
    except OSError:
        return ""


def _allowed(values: Mapping[str, str]) -> dict[str, str]:
    """Removes the range of groups where this machine is a container without all group ids."""
    try:
        every = _GID_MAP.read_text().split()[2:] == [_EVERY_ID]
    except OSError:
        every = False
    return {name: value for name, value in values.items() if every or name != _PING}
