"""Runtimes other than runc, wrapped so that they work on machines that run tests."""

from __future__ import annotations

import shutil
from pathlib import Path

# crun refuses a host with both cgroup versions, unless it cannot see the second one.
_CRUN = """\
#!/bin/sh
[ -e /sys/fs/cgroup/unified/cgroup.procs ] || exec {crun} "$@"
exec unshare -m --propagation slave \\
  sh -c 'umount /sys/fs/cgroup/unified; exec {crun} "$@"' sh "$@"
"""
# gVisor of 2022 takes every network namespace of a new kernel for the host's and refuses it.
_RUNSC = """\
#!/bin/sh
exec {runsc} --network=none "$@"
"""


def wrap(directory: Path) -> None:
    """Writes programs in the place of crun and runsc; containerd must search there first."""
    for name, script in (("crun", _CRUN), ("runsc", _RUNSC)):
        program = directory / name
        program.write_text(script.format(crun=shutil.which("crun"), runsc=shutil.which("runsc")))
        program.chmod(0o755)
