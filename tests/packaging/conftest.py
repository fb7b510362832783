"""The package, built from the last commit, and guests to install it in."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from proto.release import RELEASE
from tests.support.guest import ROOT, Guest, root_of
from tests.support.needs import missing

PACKAGE = "nomad-driver-containerd"


@pytest.fixture(scope="session")
def package() -> Path:
    """The .deb, as `./dev deb` builds it."""
    if os.geteuid() != 0:
        missing("packaging", "not root: a guest needs it")
    for program in ("systemd-nspawn", "nsenter", "dpkg-buildpackage", "dh", "dh_python3"):
        if shutil.which(program) is None:
            missing("packaging", f"{program} is not installed: ./dev deb and ./dev guest bring it")
    built = subprocess.run(
        [str(ROOT / "dev"), "deb"], check=False, capture_output=True, text=True, timeout=150
    )
    assert built.returncode == 0, f"{built.stdout}{built.stderr}"
    return ROOT / "dist" / f"{PACKAGE}_{RELEASE}_all.deb"


@pytest.fixture(scope="module", params=["bookworm", "trixie", "sid"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A running guest of each suite that was made."""
    suite = str(request.param)
    if not root_of(suite).is_dir():
        missing("packaging", f"there is no guest: ./dev guest {suite} makes it")
    request.getfixturevalue("package")
    with Guest(suite) as running:
        yield running


@pytest.fixture
def installed(guest: Guest, package: Path) -> Guest:
    """The guest with the package in it, and an image that a job may name."""
    guest.copy(package, "/root/package.deb")
    guest.copy(ROOT / "packaging" / "debian" / "tests", "/root/tests")
    guest.shell("dpkg -i /root/package.deb")
    guest.shell("systemctl is-active nomad-driver-containerd-launcher containerd")
    guest.shell(
        "namespace=nomad; [ ! -e /sys/fs/cgroup/cgroup.controllers ] || namespace=nomad.slice;"
        " /root/tests/make-image 127.0.0.1:1/busybox:1 | ctr -n $namespace images import -"
    )
    return guest
