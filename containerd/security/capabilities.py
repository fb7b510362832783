"""Capabilities of a task: names and numbers, and what the job's cap_add and cap_drop leave.

They go to the bounding, effective and permitted sets. The inheritable and ambient sets stay empty:
with them a process that is not root would keep capabilities over execve that nobody gave it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable

from proto.errors import Code, DriverError

# A capability's number is its place here: `linux/capability.h`.
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
# Docker's set, without which images that chown or bind low ports do not start.
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
    """All that the kernel and this table know; `last` is /proc/sys/kernel/cap_last_cap."""
    return NAMES[: max(last, 0) + 1]


def of_mask(mask: int) -> frozenset[str]:
    """The names of a set such as CapEff in /proc/self/status."""
    return frozenset(name for number, name in enumerate(NAMES) if mask >> number & 1)


def effective(status: str) -> frozenset[str]:
    """Returns the effective capabilities in a text of /proc/PID/status; empty without the line."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return of_mask(int(match[1], 16) if match else 0)


def mask_of(names: Iterable[str]) -> int:
    """The reverse of `of_mask`."""
    return sum(1 << NAMES.index(name) for name in set(names))


def canonical(written: str, kernel: Collection[str], option: str) -> str:
    """The name in capitals with its prefix, or `ALL`.

    Raises:
        DriverError: code INVALID; there is no such capability, or not in this kernel.
    """
    name = written.strip().upper()
    if name in {ALL, _PREFIX + ALL}:
        return ALL
    name = name if name.startswith(_PREFIX) else _PREFIX + name
    if name in kernel:
        return name
    if name in NAMES:
        raise _invalid(
            f"{option}: the kernel of this node does not know {name}",
            "take it away, or run the job on a node with a newer kernel",
        )
    # Without the prefix that all have in common.
    known = [ALL, *(entry.removeprefix(_PREFIX) for entry in kernel)]
    close = difflib.get_close_matches(name.removeprefix(_PREFIX), known, n=1, cutoff=0.7)
    raise _invalid(
        f"{option}: {written[:64]!r} is no capability",
        f"did you mean {close[0]}?" if close else "capabilities(7) lists them",
    )


def granted(
    add: Iterable[str],
    drop: Iterable[str],
    *,
    kernel: Collection[str],
    everything: Collection[str],
    base: Collection[str] = DEFAULT,
) -> tuple[str, ...]:
    """Returns what a task has, in the order of the numbers: `base` and `add`, without `drop`.

    A name in both is dropped. `all` stands for what is not named: added, it brings `everything`;
    dropped, it leaves only what `add` names, as with Docker.

    Args:
        add: as the job wrote it.
        drop: as the job wrote it.
        kernel: all that the kernel knows.
        everything: what `all` can add.
        base: what a task has before.

    Raises:
        DriverError: code INVALID; a name is unknown.
    """
    added = {canonical(name, kernel, "cap_add") for name in add}
    dropped = {canonical(name, kernel, "cap_drop") for name in drop}
    found = set[str]()
    if ALL not in dropped:
        found.update(base, everything if ALL in added else ())
    found = (found | added) - dropped - {ALL}
    return tuple(name for name in NAMES if name in found)


def _invalid(text: str, resolution: str) -> DriverError:
    return DriverError(
        f"Error in creating container: {text}", resolution=resolution, code=Code.INVALID
    )
