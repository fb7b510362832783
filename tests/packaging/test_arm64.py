"""Tests on an emulated machine of another architecture, arm64: this checkout's tests, the package.

Takes an hour or more. `./dev matrix arm64` prints the counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from proto.release import RELEASE
from tests.packaging import inner_tests
from tests.packaging.conftest import root_with
from tests.support.guests.guest import need_guest
from tests.support.guests.machine import ARM64, Machine
from tests.support.registries import archives, images

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(4 * 3600)]

SUITE = "bookworm-arm64"
LIFE = (
    *("tests/containerd/life/test_life.py", "tests/containerd/exec/test_exec.py"),
    "tests/containerd/life/test_first_jobs.py",
    *("tests/containerd/security/test_security.py", "tests/containerd/process/test_oom.py"),
)
ACCEPTANCE = (
    *("tests/acceptance/test_002_signal.py", "tests/acceptance/test_016_oom.py"),
    *("tests/acceptance/test_017_seccomp_profile.py", "-k", "embedded"),
)
ARM_32 = "127.0.0.1:1/busybox:arm"
IMPORT_ARM_32 = "ctr -n nomad.slice images import --all-platforms --no-unpack /root/arm.tar"
FILTERED = (
    f"/root/tests/make-job {ARM_32} 'busybox grep Seccomp: /proc/self/status; "
    "busybox unshare -U true || echo refused'"
    " | sed s/.image_pull_policy.:/'\"seccomp\": true, &'/ | containerd-driver run -"
)


def arm_32_image(busybox: Path) -> bytes:
    """Returns an archive of an image with a 32-bit busybox alone."""
    layer = images.layer({"bin/busybox": busybox.read_bytes(), "bin/sh": "busybox"})
    files = archives.docker_files([layer], [ARM_32], {"Env": ["PATH=/bin"]}, architecture="arm")
    return archives.tar_of(files)


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Yields a machine with the checkout, and with the package in /root."""
    need_guest(SUITE, ARM64.qemu, "mkfs.ext4")
    package: Path = request.getfixturevalue("package")
    with root_with(package, SUITE) as root, TemporaryDirectory(dir=root.parent) as work:
        inner_tests.add_checkout(root)
        (root / "root/arm.tar").write_bytes(arm_32_image(root / "opt/armhf/bin/busybox"))
        with Machine(root, Path(work), ARM64) as running:
            assert running.shell("uname -m") == "aarch64"
            yield running


def test_the_package_installs_and_its_own_test_passes(machine: Machine) -> None:
    machine.shell("dpkg -i /root/package.deb")
    assert machine.shell("containerd-driver --version") == f"containerd-driver v{RELEASE}"
    assert machine.shell("/root/tests/life 2>&1").endswith("all is well")
    machine.shell("dpkg -P nomad-driver-containerd")


def test_a_32_bit_image_runs_under_the_default_filter(machine: Machine) -> None:
    machine.shell("dpkg -i /root/package.deb")
    machine.shell(IMPORT_ARM_32)
    said = machine.shell(FILTERED)
    assert "Seccomp:\t2\n" in said
    assert said.endswith("refused")
    machine.shell("dpkg -P nomad-driver-containerd")


@pytest.mark.parametrize(
    ("tier", "arguments"),
    [
        ("life", LIFE),
        ("acceptance", ACCEPTANCE),
        ("unit", ("tests/unit",)),
        ("process", ("tests/process",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_this_checkouts_tests_pass(machine: Machine, tier: str, arguments: tuple[str, ...]) -> None:
    outcome = inner_tests.run(machine, tier, *arguments)
    assert outcome.failed == []
    assert outcome.passed > 0
