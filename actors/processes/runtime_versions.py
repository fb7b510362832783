"""Versions of the runtimes' programs on this machine. Each program file is asked once."""

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
# The first versions with the mount option rro: of each program, and of the kernel (for
# mount_setattr(2)).
_RRO_SINCE = {"runc": (1, 1), "crun": (1, 4)}
_RRO_KERNEL = (5, 12)


def takes_rro(runtime: Runtime) -> bool:
    """Returns True if runtime and kernel support the mount option `rro`. Blocks."""
    return runtime.shows_mounts and not lacks_recursive_readonly(runtime)


def lacks_recursive_readonly(runtime: Runtime) -> str:
    """Returns the reason why file systems below a read-only mount stay writable. Blocks.

    Empty if these are read-only too. gVisor makes a whole mount read-only by itself.
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
        return f"{name} has no known support"
    present = version(path)
    if present is None:
        return f"{name} does not print its version"
    if present < needed:
        return f"{name} {present[0]}.{present[1]} is older than {needed[0]}.{needed[1]}"
    return ""


def version(program: Path) -> tuple[int, int] | None:
    """Returns the first two numbers of a program's version; None without a version. Blocks."""
    try:
        return _asked(str(program), program.stat().st_mtime_ns)
    except (OSError, DriverError):
        return None


@functools.lru_cache(maxsize=16)
def _asked(path: str, _changed_at_ns: int) -> tuple[int, int] | None:
    return _numbers(_VERSION, programs.run([path, "--version"], timeout_s=_ANSWER_S).stdout)


def _numbers(pattern: re.Pattern[str], text: str) -> tuple[int, int] | None:
    match = pattern.search(text)
    return (int(match[1]), int(match[2])) if match else None
