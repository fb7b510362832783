"""Tests on an emulated machine of another architecture, arm64: package, archive, checkout.

Takes an hour or more. `./dev matrix arm64` prints the counts.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from proto.release import RELEASE
from tests.packaging import inner_tests
from tests.packaging.conftest import root_with
from tests.packaging.local_task import IMAGE
from tests.support.guests.guest import ROOT, need_guest
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
HOME, PREFIX = "/srv/a", "/opt/nomad-driver-containerd"
FROM_ARCHIVE = f"""
pkill -x cd-launcher || true
{HOME}/install.sh
/root/tests/make-image {IMAGE} | ctr -n nomad.slice images import -
containerd-driver doctor
/root/tests/make-job {IMAGE} 'echo hello from $(busybox uname -m); exit 7' >/root/job.json
status=0
plugin={PREFIX}/current/plugins/containerd-driver
containerd-driver run --plugin $plugin /root/job.json || status=$?
readlink /proc/$(pgrep -x cd-launcher)/exe
kill $(pgrep -x cd-launcher)
{PREFIX}/current/install.sh --uninstall
exit $status
"""


def arm_32_image(busybox: Path) -> bytes:
    """Returns an archive of an image with a 32-bit busybox alone."""
    layer = images.layer({"bin/busybox": busybox.read_bytes(), "bin/sh": "busybox"})
    files = archives.docker_files([layer], [ARM_32], {"Env": ["PATH=/bin"]}, architecture="arm")
    return archives.tar_of(files)


def add_archive(root: Path) -> None:
    """Builds the archive for arm64 as `./dev bundle` does, and unpacks the archive into HOME."""
    words = [sys.executable, "-m", "tests.bundle", "arm64"]
    built = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)
    assert built.returncode == 0, f"{built.stdout}{built.stderr}"
    place = root / HOME[1:]
    place.mkdir(parents=True)
    words = ["tar", "-xf", built.stdout.strip(), "-C", str(place), "--strip-components=1"]
    subprocess.run(words, check=True)


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Yields a machine with the checkout, the unpacked archive, and the package in /root."""
    need_guest(SUITE, ARM64.qemu, "mkfs.ext4")
    package: Path = request.getfixturevalue("package")
    with root_with(package, SUITE) as root, TemporaryDirectory(dir=root.parent) as work:
        inner_tests.add_checkout(root)
        add_archive(root)
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


def test_the_archive_installs_and_runs_a_task(machine: Machine) -> None:
    done = machine.run("sh", "-ec", FROM_ARCHIVE)
    assert done.returncode == 7, done.stdout
    assert "hello from aarch64" in done.stdout
    assert f"{PREFIX}/{RELEASE}/python/" in done.stdout, "the archive's Python runs the launcher"
    assert machine.run("ls", PREFIX).returncode != 0


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
