"""Runtimes by the names that operators and jobs write, and which of them this machine has.

containerd finds the shim of `io.containerd.<name>.<version>` as the program
`containerd-shim-<name>-<version>` on its PATH. runc's shim runs any program that takes runc's
command line, which is how crun is run, and gVisor's runsc where its own shim is not installed.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from proto.errors import Code, DriverError

# A service's PATH, and where bundles of containerd put their programs.
DIRECTORIES = (
    *("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"),
    *("/opt/containerd/bin", "/usr/libexec"),
)
DEFAULT = "io.containerd.runc.v2"
_RUNCS_SHIM = re.compile(r"(?:^|/)containerd-shim-runc-v[0-9]+$")
_TYPE = re.compile(r"io\.containerd\.([a-z0-9_-]+)\.(v[0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What containerd is told. binary_name is empty where the shim knows its own program."""

    name: str
    binary_name: str = ""

    @property
    def binary(self) -> str:
        """The runtime's own program; empty where the shim is all there is."""
        if self.name.startswith("io.containerd.runc."):
            return self.binary_name or "runc"
        return "runsc" if self.name.startswith("io.containerd.runsc.") else ""

    @property
    def shows_mounts(self) -> bool:
        """Returns whether the kernel's list of a created process's mounts is that of its container.

        It is where runc's shim runs runc or crun. gVisor and Kata have a kernel of their own.
        """
        shim = _programs(self)[0]
        return _RUNCS_SHIM.search(shim) is not None and self.binary_name != "runsc"


# By preference; the first whose programs are here is taken.
_SHORT_NAMES = {
    "runc": (Runtime(name=DEFAULT),),
    "crun": (Runtime(name=DEFAULT, binary_name="crun"),),
    "runsc": (
        Runtime(name="io.containerd.runsc.v1"),
        Runtime(name=DEFAULT, binary_name="runsc"),
    ),
    "kata": (Runtime(name="io.containerd.kata.v2"),),
}
_LONG_NAMES = (
    "io.containerd.runc.v2",
    "io.containerd.runc.v1",
    "io.containerd.runsc.v1",
    "io.containerd.kata.v2",
)
KNOWN = (*_SHORT_NAMES, *_LONG_NAMES)


def resolve(written: str, directories: tuple[str, ...] = DIRECTORIES) -> Runtime:
    """The runtime of a name: short, or a shim's type, or the path of a shim.

    Raises:
        DriverError: code INVALID; no such name, or its programs are not on this machine.
    """
    candidates = _SHORT_NAMES.get(written) or (Runtime(name=written),)
    if written == "io.containerd.runsc.v1":
        candidates = _SHORT_NAMES["runsc"]
    missing: list[str] = []
    for runtime in candidates:
        lacking = [name for name in _programs(runtime) if not _find(name, directories)]
        if not lacking:
            return runtime
        missing += lacking
    raise DriverError(
        f"the runtime {written[:128]!r} is not installed",
        details=f"no {' and no '.join(dict.fromkeys(missing))} on this machine",
        resolution=f"install it, or use one that is here: {', '.join(available(directories))}",
        code=Code.INVALID,
    )


def available(directories: tuple[str, ...] = DIRECTORIES) -> tuple[str, ...]:
    """The names of KNOWN whose programs are on this machine."""
    found: list[str] = []
    for name in KNOWN:
        candidates = _SHORT_NAMES.get(name, (Runtime(name=name),))
        if any(all(_find(p, directories) for p in _programs(c)) for c in candidates):
            found.append(name)
    return tuple(found)


def _programs(runtime: Runtime) -> tuple[str, ...]:
    match = _TYPE.fullmatch(runtime.name)
    if match is not None:
        shim = f"containerd-shim-{match[1]}-{match[2]}"
    elif runtime.name.startswith("/"):
        shim = runtime.name
    else:
        raise DriverError(
            f"the runtime {runtime.name[:128]!r} is unknown",
            resolution=f"use one of {', '.join(KNOWN)}",
            code=Code.INVALID,
        )
    if match is not None and match[1] == "runc":
        return shim, runtime.binary_name or "runc"
    return (shim,)


def _find(name: str, directories: tuple[str, ...]) -> bool:
    return program(name, directories) is not None


def program(name: str, directories: tuple[str, ...] = DIRECTORIES) -> Path | None:
    """The file of a program by name or path; None where it is not on this machine."""
    # Each start asks, so no path object is made for a place where nothing is.
    candidates = (name,) if name.startswith("/") else (f"{at}/{name}" for at in directories)
    return next((Path(path) for path in candidates if os.path.isfile(path)), None)  # noqa: PTH113
