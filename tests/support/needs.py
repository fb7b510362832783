"""What a test needs of the machine: missing means skip, or failure where REQUIRE names the tier."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

from tests.support import containerd_versions


def missing(tier: str, reason: str, *, skip_as: str = "") -> NoReturn:
    """Skips the test, or fails it when the environment's REQUIRE (a comma list) names `tier`.

    Args:
        tier: as in REQUIRE.
        reason: what is missing, and what to do.
        skip_as: the reason in a line, where `reason` is long.
    """
    if tier in os.environ.get("REQUIRE", "").split(","):
        pytest.fail(f"REQUIRE={tier}, but {reason}")
    pytest.skip(skip_as or reason)


def need_program(package: str, *names: str) -> str:
    """The path of a program that not every distribution has; the test is skipped without it.

    Args:
        package: of Debian, which brings it.
        names: of other programs that do as well as the one that is called as its package.
    """
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/libexec/podman"
    for name in (package, *names):
        if found := shutil.which(name, path=path):
            return found
    pytest.skip(f"{package} is not installed: apt-get install {package}")


def need_root_here() -> None:
    """Root, for code of the driver in the test's own process: it reads images in mounts."""
    if os.geteuid() != 0:
        missing("root", "not root: the driver's actors make mounts in this process")


def need_containerd() -> None:
    """Root, containerd, runc and ctr."""
    if os.geteuid() != 0:
        missing("containerd", "not root: a real containerd needs it")
    folder = containerd_versions.bin_dir()
    for name in ("containerd", "runc", "ctr"):
        if containerd_versions.program(name, folder) is None:
            missing("containerd", f"{name} is not installed (apt-get install containerd runc)")
