"""Runtimes by the names in jobs and the driver's configuration, and their programs on this machine.

containerd finds the shim of `io.containerd.<name>.<version>` as the program
`containerd-shim-<name>-<version>` on its PATH. runc's shim runs any program that takes runc's
command line: crun, and gVisor's runsc if gVisor's own shim is not installed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from proto.errors import Code, DriverError
from proto.values import dataclass

# PATH of a service, and the directories of containerd's release archives.
DIRECTORIES = (
    *("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"),
    *("/opt/containerd/bin", "/usr/libexec"),
)
DEFAULT = "io.containerd.runc.v2"
_NVIDIA = "nvidia-container-runtime"
_RUNCS_SHIM = re.compile(r"(?:^|/)containerd-shim-runc-v[0-9]+$")
_GROUPING_SHIM = re.compile(r"(?:^|/)containerd-shim-runc-v2$")
_TYPE = re.compile(r"io\.containerd\.([a-z0-9_-]+)\.(v[0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A runtime as containerd gets it: name of the shim's type, or the shim's path.

    binary_name is the program for runc's shim; empty for the shim's own choice.
    """

    name: str
    binary_name: str = ""

    @property
    def binary(self) -> str:
        """Name of the runtime's program; empty for a runtime that consists of its shim."""
        if self.name.startswith("io.containerd.runc."):
            return self.binary_name or "runc"
        return "runsc" if self.name.startswith("io.containerd.runsc.") else ""

    @property
    def shares_kernel(self) -> bool:
        """True if /proc/PID/mountinfo of a created process shows the container's mounts.

        True for runc and crun below runc's shim. gVisor and Kata have their own kernel.
        """
        shim = _programs(self)[0]
        return _RUNCS_SHIM.search(shim) is not None and self.binary_name != "runsc"

    @property
    def adds_gpus(self) -> bool:
        """True for nvidia's runtime, which adds GPUs, mounts and hooks and runs runc."""
        return self.binary_name == _NVIDIA

    @property
    def groups(self) -> bool:
        """True if one shim can hold several containers: runc and crun below runc's shim."""
        return _GROUPING_SHIM.search(_programs(self)[0]) is not None and self.shares_kernel


# In order of preference: the first runtime with installed programs is used.
_SHORT_NAMES = {
    "runc": (Runtime(name=DEFAULT),),
    "crun": (Runtime(name=DEFAULT, binary_name="crun"),),
    "runsc": (
        Runtime(name="io.containerd.runsc.v1"),
        Runtime(name=DEFAULT, binary_name="runsc"),
    ),
    "kata": (Runtime(name="io.containerd.kata.v2"),),
}
# A job names such a runtime only with the operator's leave, in allow_runtimes: nvidia's obeys more
# variables of a task than the choice of GPUs.
_OPERATORS = {"nvidia": (Runtime(name=DEFAULT, binary_name=_NVIDIA),)}
_LONG_NAMES = (
    "io.containerd.runc.v2",
    "io.containerd.runc.v1",
    "io.containerd.runsc.v1",
    "io.containerd.kata.v2",
)
KNOWN = (*_SHORT_NAMES, *_LONG_NAMES)


def resolve(written: str, directories: tuple[str, ...] = DIRECTORIES) -> Runtime:
    """Returns the runtime of a short name, of a shim's type or of a shim's path.

    Raises:
        DriverError: code INVALID; the name is unknown, or the programs are not installed.
    """
    named = _SHORT_NAMES.get(written) or _OPERATORS.get(written)
    candidates = named or (Runtime(name=written),)
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
        resolution=f"install it, or use an installed runtime: {', '.join(available(directories))}",
        code=Code.INVALID,
    )


def available(directories: tuple[str, ...] = DIRECTORIES) -> tuple[str, ...]:
    """Returns the names of KNOWN with installed programs."""
    names: list[str] = []
    for name in KNOWN:
        candidates = _SHORT_NAMES.get(name, (Runtime(name=name),))
        if any(all(_find(p, directories) for p in _programs(c)) for c in candidates):
            names.append(name)
    return tuple(names)


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
    """Returns the file of a program by name or path; None if the program is not installed."""
    # Runs at each start, so strings are compared without a Path object for each directory.
    candidates = (name,) if name.startswith("/") else (f"{at}/{name}" for at in directories)
    return next((Path(path) for path in candidates if os.path.isfile(path)), None)  # noqa: PTH113
