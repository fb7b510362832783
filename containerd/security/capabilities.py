"""Computes the capabilities of a task from the job's cap_add and cap_drop.

The result goes to the bounding, effective and permitted sets. The inheritable and ambient sets stay
empty: with these sets a process of another user than root would keep capabilities over execve.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable

from proto.errors import Code, start_refused

# A capability's number is its index in NAMES: `linux/capability.h`.
NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
# Docker's set. Images that call chown or bind low ports do not start without it.
DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
ALL = "ALL"
_PREFIX = "CAP_"


def of_kernel(last: int) -> tuple[str, ...]:
    """Returns the kernel's capabilities; `last` is the number in /proc/sys/kernel/cap_last_cap."""
    return NAMES[: max(last, 0) + 1]


def of_mask(mask: int) -> frozenset[str]:
    """Returns the names in a bit mask such as CapEff in /proc/self/status."""
    return frozenset(name for number, name in enumerate(NAMES) if mask >> number & 1)


def effective(status: str) -> frozenset[str]:
    """Returns the effective capabilities in a text of /proc/PID/status; empty without the line."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return of_mask(int(match[1], 16) if match else 0)


def canonical(written: str, kernel: Collection[str], option: str) -> str:
    """Returns the name in capitals with the prefix CAP_, or `ALL`.

    Args:
        written: the job's text, in any case, with or without the prefix.
        kernel: the kernel's capabilities.
        option: cap_add or cap_drop, for errors.

    Raises:
        DriverError: code INVALID; the name is unknown, or the node's kernel lacks the capability.
    """
    name = written.strip().upper()
    if name in {ALL, _PREFIX + ALL}:
        return ALL
    name = name if name.startswith(_PREFIX) else _PREFIX + name
    if name in kernel:
        return name
    if name in NAMES:
        raise start_refused(
            f"{option}: the kernel of this node does not have {name}",
            "remove the capability, or run the job on a node with a newer kernel",
        )
    # Compared without the prefix, because a common prefix makes all names similar.
    known = [ALL, *(entry.removeprefix(_PREFIX) for entry in kernel)]
    close = difflib.get_close_matches(name.removeprefix(_PREFIX), known, n=1, cutoff=0.7)
    raise start_refused(
        f"{option}: {written[:64]!r} is no capability",
        f"did you mean {close[0]}?" if close else "capabilities(7) lists all names",
    )


def allowed(
    allow: Collection[str] | None, add: Iterable[str], kernel: Collection[str]
) -> tuple[str, ...]:
    """Checks cap_add against allow_caps of the operator; returns the defaults in allow_caps.

    The defaults are cut too: with NET_RAW a task can forge packets of its neighbours.

    Args:
        allow: the allowed names, or `all`; None allows all.
        add: the job's cap_add; `all` needs `all` in `allow`.
        kernel: the kernel's capabilities.

    Raises:
        DriverError: code DENIED; a capability is not allowed.
    """
    if allow is None:
        return DEFAULT
    names = {canonical(name, NAMES, "allow_caps") for name in allow}
    if ALL in names:
        return DEFAULT
    wanted = {canonical(name, kernel, "cap_add") for name in add}
    if refused := sorted(wanted - names):
        raise start_refused(
            f"driver does not allow the following capabilities: {_short(refused)}",
            "remove these from cap_add; allow_caps in the driver's plugin block is"
            f" {_short(sorted(names)) or 'empty'}",
            code=Code.DENIED,
        )
    return tuple(name for name in DEFAULT if name in names)


def _short(names: Iterable[str]) -> str:
    return ", ".join(name.removeprefix(_PREFIX).lower() for name in names)


def granted(
    add: Iterable[str],
    drop: Iterable[str],
    *,
    kernel: Collection[str],
    everything: Collection[str],
    base: Collection[str] = DEFAULT,
) -> tuple[str, ...]:
    """Returns a task's capabilities in numeric order: `base` and `add`, without `drop`.

    A name in both `add` and `drop` is dropped. As with Docker, `all` stands for the names not
    written: `all` in `add` adds `everything`, and `all` in `drop` leaves only the names in `add`.

    Args:
        add: the job's cap_add.
        drop: the job's cap_drop.
        kernel: the kernel's capabilities.
        everything: the capabilities that `all` can add.
        base: the task's capabilities before `add` and `drop`.

    Raises:
        DriverError: code INVALID; a name is unknown.
    """
    added = {canonical(name, kernel, "cap_add") for name in add}
    dropped = {canonical(name, kernel, "cap_drop") for name in drop}
    names = set[str]()
    if ALL not in dropped:
        names.update(base, everything if ALL in added else ())
    names = (names | added) - dropped - {ALL}
    return tuple(name for name in NAMES if name in names)
