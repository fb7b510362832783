"""Requirements of tests: an absent program skips a test, or fails a test of a tier in REQUIRE."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

from tests.support.daemons import containerd_versions


def missing(tier: str, reason: str, *, skip_as: str = "") -> NoReturn:
    """Skips the test, or fails the test if the environment's REQUIRE (a comma list) has `tier`.

    Args:
        tier: as in REQUIRE.
        reason: the absent program or right, and the remedy.
        skip_as: the reason in one line, for a long `reason`.
    """
    if tier in os.environ.get("REQUIRE", "").split(","):
        pytest.fail(f"REQUIRE={tier}, but {reason}")
    pytest.skip(skip_as or reason)


def need_program(package: str, *names: str) -> str:
    """Returns the path of a program that some distributions lack; without a path, skips the test.

    Args:
        package: the Debian package of the program.
        names: programs that serve as well as the program with the package's name.
    """
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/libexec/podman"
    for name in (package, *names):
        if found := shutil.which(name, path=path):
            return found
    pytest.skip(f"{package} is not installed: apt-get install {package}")


def need_root_here() -> None:
    """Requires root, for driver code in the test's own process: the code reads mounted images."""
    if os.geteuid() != 0:
        missing("root", "not root: the driver's actors make mounts in this process")


def need_containerd() -> None:
    """Requires root, containerd, runc and ctr."""
    if os.geteuid() != 0:
        missing("containerd", "not root: a real containerd needs it")
    folder = containerd_versions.bin_dir()
    for name in ("containerd", "runc", "ctr"):
        if containerd_versions.program(name, folder) is None:
            missing("containerd", f"{name} is not installed (apt-get install containerd runc)")
