"""What older containerds cannot do: told at fingerprint and before work that needs it."""

from __future__ import annotations

import re

from proto.errors import Code, DriverError

ZSTD = "zstd"
# Ability: the first release that has it, and in words what it is.
_SINCE = {ZSTD: ((1, 5), "unpack layers compressed with zstd")}


def of(version: str) -> dict[str, bool]:
    """Each ability's name, and whether containerd of this version has it.

    A version that does not begin with numbers is a build of somebody's own, and counts as new.
    """
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    release = (int(numbers[1]), int(numbers[2])) if numbers else None
    return {name: release is None or release >= since for name, (since, _) in _SINCE.items()}


def lacking(version: str) -> str:
    """Returns what it cannot do, in words; empty where there is nothing."""
    return ", ".join(_SINCE[name][1] for name, has in of(version).items() if not has)


def need(ability: str, version: str, what: str) -> None:
    """Refuses what this node's containerd cannot do.

    Args:
        ability: one of `of`.
        version: containerd's.
        what: what needs it, the begin of the sentence.

    Raises:
        DriverError: code UNSUPPORTED.
    """
    if of(version)[ability]:
        return
    (major, minor), words = _SINCE[ability]
    raise DriverError(
        f"{what} needs a containerd that can {words}",
        details=f"this node has {version}, the first that can is {major}.{minor}",
        resolution=f"constrain the job to nodes with ${{attr.driver.containerd.{ability}}} = true",
        code=Code.UNSUPPORTED,
    )
