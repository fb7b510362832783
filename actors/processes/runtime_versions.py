"""Versions of the runtimes' programs on this machine. Each program file is asked once.

A version of a distribution's package has the distribution's revision, such as 1.1.5+ds1-1+deb12u1.
"""

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
# Debian prints the package's revision in the line of the commit.
_VERSION = re.compile(r"^\w+ version (\S+)|^commit: (\d+\.\d+\S*deb\S*)", re.MULTILINE)
_NUMBERS = re.compile(r"(\d+)\.(\d+)")
# The first versions with the mount option rro: of each program, and of the kernel (for
# mount_setattr(2)).
_RRO_SINCE = {"runc": (1, 1), "crun": (1, 4)}
_RRO_KERNEL = (5, 12)


def takes_rro(runtime: Runtime) -> bool:
    """Returns True if runtime and kernel support the mount option `rro`. Blocks."""
    return runtime.shares_kernel and not lacks_recursive_readonly(runtime)


def lacks_recursive_readonly(runtime: Runtime) -> str:
    """Returns the reason why file systems below a read-only mount stay writable. Blocks.

    Empty if these are read-only too. gVisor makes a whole mount read-only by itself.
    """
    if not runtime.shares_kernel:
        return ""
    kernel = _numbers(_NUMBERS, platform.release())
    if kernel is not None and kernel < _RRO_KERNEL:
        return f"Linux {platform.release()} is older than 5.12"
    name = runtime.binary_name or "runc"
    needed = _RRO_SINCE.get(name)
    path = runtimes.program(name)
    if needed is None or path is None:
        return f"{name} has no known support"
    present = _numbers(_NUMBERS, version(path))
    if present is None:
        return f"{name} does not print its version"
    if present < needed:
        return f"{name} {present[0]}.{present[1]} is older than {needed[0]}.{needed[1]}"
    return ""


def version(program: Path) -> str:
    """Returns the version of a program; empty for a program that prints none. Blocks."""
    try:
        return _asked(str(program), program.stat().st_mtime_ns)
    except (OSError, DriverError):
        return ""


@functools.lru_cache(maxsize=16)
def _asked(path: str, _changed_at_ns: int) -> str:
    output = programs.run([path, "--version"], timeout_s=_ANSWER_S).stdout
    versions = [first or second for first, second in _VERSION.findall(output)]
    return versions[-1] if versions else ""


def _numbers(pattern: re.Pattern[str], text: str) -> tuple[int, int] | None:
    match = pattern.search(text)
    return (int(match[1]), int(match[2])) if match else None
