"""SELinux in force on an emulated machine with Debian 13: contexts, volumes, refusals.

Debian's policy confines containerd and the runtime, and then no task starts. After the first test a
module takes the policy's limits off both domains, as `docs/security.md` says.
Takes five minutes.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.packaging.conftest import root_with
from tests.packaging.local_task import IMAGE
from tests.support.guests.guest import ROOT, need_guest
from tests.support.guests.machine import AMD64, Machine

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(3600)]

SUITE = "trixie-selinux"
KERNEL = "security=selinux selinux=1 enforcing=0"
CONFINED = re.compile(r"system_u:system_r:container_t:(s0:c\d+,c\d+)\0?")
VOLUMES = """
for name in plain shared own; do mkdir /srv/$name; echo content >/srv/$name/file; done
restorecon -RF /srv
"""


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Yields a machine with the package, an image, three volumes, and the policy in force."""
    need_guest(SUITE, AMD64.qemu, "mkfs.ext4")
    package: Path = request.getfixturevalue("package")
    with root_with(package, SUITE) as root, TemporaryDirectory(dir=root.parent) as work:
        words = ["chroot", str(root), "dpkg", "-i", "/root/package.deb"]
        subprocess.run(words, check=True, capture_output=True)
        with Machine(root, Path(work), kernel=KERNEL) as running:
            running.shell(f"/root/tests/make-image {IMAGE} | ctr -n nomad.slice images import -")
            running.shell(f"{VOLUMES}restorecon -RF /root /etc /usr; setenforce 1")
            assert running.shell("getenforce") == "Enforcing"
            yield running


@pytest.fixture(scope="module")
def free_runtime(machine: Machine) -> Machine:
    """Yields the machine whose policy does not limit containerd and the runtime."""
    page = (ROOT / "docs/security.md").read_text()
    lines = re.findall(r"^    (\(typepermissive \w+\))$", page, re.MULTILINE)
    assert len(lines) == 2
    machine.shell(f"echo '{' '.join(lines)}' >/root/runtime.cil; semodule -i /root/runtime.cil")
    assert machine.shell("getenforce") == "Enforcing"
    return machine


def run(machine: Machine, command: str, options: str = "") -> tuple[int, str]:
    """Runs a confined task; returns exit status and output."""
    with_options = f"| sed 's#.image_pull_policy.:#{options} &#'" if options else ""
    done = machine.run(
        *("sh", "-c"),
        f"/root/tests/make-job {IMAGE} '{command}' {with_options}"
        " | containerd-driver run --config selinux_enabled=true -",
    )
    return done.returncode, done.stdout


def test_a_policy_that_confines_the_runtime_is_named(machine: Machine) -> None:
    status, said = run(machine, "true")
    assert status == 125
    assert "permission denied" in said
    assert "SELinux is in force and may have refused: see ausearch" in said


def test_a_task_and_its_checks_are_confined_and_use_their_allocation(free_runtime: Machine) -> None:
    words = '"command": "/bin/busybox", "args": ["cp", "/proc/self/attr/current", "/local/check"]'
    status, said = run(
        free_runtime,
        "busybox cat /proc/self/attr/current; echo >/local/a; echo >/alloc/b; echo >/secrets/c;"
        " echo >/dev/shm/d; until busybox cat /local/check; do busybox sleep 1; done 2>/dev/null",
        f'"healthcheck": [{{{words}, "interval": "1s"}}],',
    )
    assert status == 0, said
    levels = CONFINED.findall(said)
    assert len(levels) == 2, said
    assert levels[0] == levels[1]
    assert "denied" not in said


@pytest.mark.parametrize(
    ("volume", "contents"),
    [("/srv/plain:/x", ""), ("/srv/shared:/x:z", "content"), ("/srv/own:/x:Z", "content")],
)
def test_a_volume_is_open_with_z_alone(free_runtime: Machine, volume: str, contents: str) -> None:
    status, said = run(free_runtime, "busybox cat /x/file", f'"volumes": ["{volume}"],')
    assert (status == 0) is bool(contents), said
    assert ("content\n" in said) is bool(contents)
    assert ("Permission denied" in said) is (not contents)


def test_another_allocation_reads_shared_files_alone(free_runtime: Machine) -> None:
    status, said = run(free_runtime, "true", '"volumes": ["/srv/shared:/s:z", "/srv/own:/o:Z"],')
    assert status == 0, said
    volumes = '"volumes": ["/srv/shared:/s", "/srv/own:/o"],'
    status, said = run(free_runtime, "busybox cat /s/file; busybox cat /o/file", volumes)
    assert status != 0
    assert "content\n" in said
    assert "can't open '/o/file': Permission denied" in said


def test_a_task_that_is_not_confined_reads_what_the_node_reads(free_runtime: Machine) -> None:
    options = '"volumes": ["/srv/plain:/x"], "security_opt": ["label=disable"],'
    status, said = run(free_runtime, "busybox cat /x/file /proc/self/attr/current", options)
    assert status == 0, said
    assert "content\n" in said
    assert "container_t" not in said


@pytest.mark.parametrize("option", ["type:nonsense_t", "level:s0:c1,c2000"])
def test_a_context_that_the_policy_does_not_know_is_refused(machine: Machine, option: str) -> None:
    status, said = run(machine, "true", f'"selinux_opts": ["{option}"],')
    assert status == 125
    assert "the SELinux policy of this node does not know the context system_u:" in said
    assert option.partition(":")[2] in said


def test_the_doctor_says_that_tasks_are_confined(machine: Machine) -> None:
    said = machine.run("containerd-driver", "doctor", "--config", "selinux_enabled=true").stdout
    assert "tasks run as system_u:system_r:container_t:s0" in said
