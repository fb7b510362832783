"""Versions of the runtimes' programs on this machine, asked of themselves once per file."""

from __future__ import annotations

import functools
import platform
import re
from pathlib import Path

from actors.processes import short_program as programs
from containerd import runtimes
from containerd.runtimes import Runtime
from proto.errors import DriverError

_ANSWER_S = 5.0
_VERSION = re.compile(r"version v?(\d+)\.(\d+)")
_NUMBERS = re.compile(r"(\d+)\.(\d+)")
# The mount option rro: by each program, and by the kernel, whose mount_setattr(2) it is.
_RRO_SINCE = {"runc": (1, 1), "crun": (1, 4)}
_RRO_KERNEL = (5, 12)


def takes_rro(runtime: Runtime) -> bool:
    """Returns whether the runtime knows the mount option `rro` and the kernel can do it. Blocks."""
    return runtime.shows_mounts and not lacks_recursive_readonly(runtime)


def lacks_recursive_readonly(runtime: Runtime) -> str:
    """Why a read-only mount leaves file systems below it writable; empty where it does not. Blocks.

    gVisor keeps a whole mount read-only by itself.
    """
    if not runtime.shows_mounts:
        return ""
    kernel = _numbers(_NUMBERS, platform.release())
    if kernel is not None and kernel < _RRO_KERNEL:
        return f"Linux {platform.release()} is older than 5.12"
    name = runtime.binary_name or "runc"
    needed = _RRO_SINCE.get(name)
    path = runtimes.program(name)
    if needed is None or path is None:
        return f"{name} is not known to do better"
    found = version(path)
    if found is None:
        return f"{name} does not tell its version"
    if found < needed:
        return f"{name} {found[0]}.{found[1]} is older than {needed[0]}.{needed[1]}"
    return ""


def version(program: Path) -> tuple[int, int] | None:
    """The first two numbers of a program's version; None where it does not tell. Blocks."""
    try:
        return _asked(str(program), program.stat().st_mtime_ns)
    except (OSError, DriverError):
        return None


@functools.lru_cache(maxsize=16)
def _asked(path: str, _changed_at_ns: int) -> tuple[int, int] | None:
    return _numbers(_VERSION, programs.run([path, "--version"], timeout_s=_ANSWER_S).stdout)


def _numbers(pattern: re.Pattern[str], text: str) -> tuple[int, int] | None:
    found = pattern.search(text)
    return (int(found[1]), int(found[2])) if found else None
