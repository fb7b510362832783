"""Shims as the process table shows them: one that containerd has forgotten is found nowhere else.

A call of a client that dies is cancelled. In the middle of a Create or a Delete, containerd may
then drop a task from its books and leave the shim and its bundle, which no later call names.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "containerd-shim"
_ERRANDS = {"start", "delete"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShimProcess:
    """A process of a shim's program. Its errand is to start a shim or to clean up after one.

    bundle is where it works; containerd removes it when it has cleaned up.
    """

    pid: int
    bundle: Path
    errand: bool


def find(address: str, namespace: str, container_id: str) -> list[ShimProcess]:
    """Processes that containerd at this address has started for a container. Blocks a little."""
    wanted = {"-address": address, "-namespace": namespace, "-id": container_id}
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = _words(entry)
            if _is_shim(words, wanted):
                bundle = (entry / "cwd").readlink()
                errand = words[-1] in _ERRANDS
                found.append(ShimProcess(pid=int(entry.name), bundle=bundle, errand=errand))
    return found


def kill(shim: ShimProcess) -> None:
    """SIGKILL, if the process still is the one that was found."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(shim.pid)
        try:
            if (Path(f"/proc/{shim.pid}") / "cwd").readlink() == shim.bundle:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


def _words(process: Path) -> list[str]:
    text = (process / "cmdline").read_bytes().decode(errors="surrogateescape")
    return text.rstrip("\0").split("\0")


def _is_shim(words: Sequence[str], wanted: dict[str, str]) -> bool:
    if not os.path.basename(words[0]).startswith(_PREFIX):  # noqa: PTH119 - of every process
        return False
    given = dict(itertools.pairwise(words))
    return all(given.get(option) == value for option, value in wanted.items())
