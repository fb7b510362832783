"""The package, built from the last commit, and guests to install it in."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proto.release import RELEASE
from tests.packaging.local_task import Task
from tests.support.guests.guest import GUESTS, ROOT, Guest, need_guest, overlay, unified
from tests.support.needs import missing

PACKAGE = "nomad-driver-containerd"
UNIT = f"{PACKAGE}-launcher.service"
SOCKET = f"{PACKAGE}-launcher.socket"
STATE = f"/run/{PACKAGE}"
NEWER = f"{RELEASE}.99"
EARLIER, EARLIER_COMMIT = "1.1.0", "a032d7766cdfe86b73352a998a27fb97d57c8ccd"
"""A release whose modules lay in other folders, and its last commit."""


def newer_package(package: Path, work: Path) -> Path:
    """Builds the same package as a later release."""
    tree = work / "tree"
    subprocess.run(["dpkg-deb", "-R", str(package), str(tree)], check=True)
    for name in ("DEBIAN/control", f"usr/share/{PACKAGE}/proto/release.py"):
        file = tree / name
        file.write_text(
            re.sub(rf'(Version: |")({re.escape(RELEASE)})', rf"\g<1>{NEWER}", file.read_text())
        )
    made = work / "newer.deb"
    subprocess.run(["dpkg-deb", "-b", str(tree), str(made)], check=True, capture_output=True)
    return made


@contextlib.contextmanager
def root_with(package: Path, suite: str) -> Iterator[Path]:
    """Yields a suite's root with the package and the package's own tests in /root."""
    with overlay(suite) as root:
        shutil.copy(package, root / "root/package.deb")
        shutil.copytree(ROOT / "packaging/debian/tests", root / "root/tests")
        yield root


def _need_a_guest() -> None:
    """Requires root and any guest, before the minute of a build."""
    if os.geteuid() != 0:
        missing("packaging", "not root: a guest needs it")
    if not GUESTS.is_dir():
        missing("packaging", "there is no guest: ./dev guest SUITE makes it")


@pytest.fixture(scope="session")
def package() -> Path:
    """Builds the .deb of the last commit, as `./dev deb` does; DEB names a built one."""
    _need_a_guest()
    for program in ("systemd-nspawn", "nsenter", "dpkg-buildpackage", "dh", "dh_python3"):
        if shutil.which(program) is None:
            missing("packaging", f"{program} is not installed: ./dev deb and ./dev guest bring it")
    if named := os.environ.get("DEB", ""):
        return Path(named)
    built = subprocess.run(
        [str(ROOT / "dev"), "deb"], check=False, capture_output=True, text=True, timeout=150
    )
    assert built.returncode == 0, f"{built.stdout}{built.stderr}"
    return ROOT / "dist" / f"{PACKAGE}_{RELEASE}_all.deb"


@pytest.fixture(scope="session")
def archive() -> Path:
    """Builds the archive of the last commit, as `./dev bundle` does; BUNDLE names a built one."""
    _need_a_guest()
    for program in ("systemd-nspawn", "nsenter", "readelf"):
        if shutil.which(program) is None:
            missing(
                "packaging", f"{program} is not installed: ./dev guest and ./dev bundle bring it"
            )
    if named := os.environ.get("BUNDLE", ""):
        return Path(named)
    words = [sys.executable, "-m", "tests.bundle"]
    built = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)
    assert built.returncode == 0, f"{built.stdout}{built.stderr}"
    return Path(built.stdout.strip())


@pytest.fixture(scope="session")
def earlier_package(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the .deb of release EARLIER from the last commit of the release."""
    assert package.is_file(), "the build of this release has checked the tools"
    work = tmp_path_factory.mktemp("earlier")
    source = work / PACKAGE
    source.mkdir()
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", EARLIER_COMMIT], check=False, capture_output=True
    )
    if archive.returncode != 0:
        missing("packaging", f"the history of this clone has no {EARLIER_COMMIT[:7]}")
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive.stdout, check=True)
    shutil.copytree(source / "packaging" / "debian", source / "debian")
    built = subprocess.run(
        ["dpkg-buildpackage", "--no-sign", "--build=binary"],
        cwd=source,
        check=False,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert built.returncode == 0, f"{built.stdout}{built.stderr}"
    return work / f"{PACKAGE}_{EARLIER}_all.deb"


@pytest.fixture(scope="module", params=["bookworm", "trixie", "sid"])
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Yields a root of each suite that exists, with the package in /root."""
    suite = str(request.param)
    need_guest(suite)
    with root_with(request.getfixturevalue("package"), suite) as made:
        yield made


@pytest.fixture(scope="module")
def guest(root: Path) -> Iterator[Guest]:
    """Starts a guest."""
    release = (root / "etc" / "debian_version").read_text()
    if "sid" in release and not unified():
        missing("packaging", "systemd of sid boots on cgroups of version 2 only")
    with Guest(root) as running:
        yield running


@pytest.fixture
def installed(guest: Guest) -> Guest:
    """Installs the package in the guest, and an image for jobs."""
    guest.shell("dpkg -i /root/package.deb")
    guest.shell("systemctl is-active nomad-driver-containerd-launcher containerd")
    guest.shell(
        "namespace=nomad; [ ! -e /sys/fs/cgroup/cgroup.controllers ] || namespace=nomad.slice;"
        " /root/tests/make-image 127.0.0.1:1/busybox:1 | ctr -n $namespace images import -"
    )
    return guest


@pytest.fixture
def task(installed: Guest, tmp_path: Path) -> Iterator[Task]:
    """Starts a task; stops the task in an orderly way and checks that nothing is left."""
    running = Task(installed, tmp_path / "out")
    yield running
    assert "stopped" in running.stop()
    installed.wait(lambda: installed.shell(f"ls {STATE}/tasks") == "", "the task left something")
