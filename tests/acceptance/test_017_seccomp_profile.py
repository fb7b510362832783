"""Acceptance tests of a seccomp profile in Docker's JSON.

The conditions of the profile are evaluated with the task's own capabilities.
"""

from __future__ import annotations

import json

import pytest

from tests.acceptance.clusters.cluster import PROFILES, Cluster, Task
from tests.support.daemons.containerd_daemon import ContainerdDaemon

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]

ENOSYS = 38
# An error that only a filter gives for these calls.
DENIED = "Function not implemented"


def rule(name: str, **conditions: object) -> dict[str, object]:
    """Builds a rule: a call fails with the error if the conditions hold."""
    return {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS, **conditions}


PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        rule("mkdir"),
        rule("mkdirat"),
        rule("mount", excludes={"caps": ["CAP_SYS_ADMIN"]}),
        rule("sethostname", includes={"arches": ["amd64", "arm64"], "minKernel": "4.8"}),
        rule("chroot", includes={"caps": ["CAP_SYS_TIME"]}),
        rule("umount2", includes={"arches": ["s390x"]}),
    ],
}


def errors(task: Task, script: str) -> str:
    """Returns the error text of a failing script, or "" for a script that succeeds."""
    done = task.exec("/bin/sh", "-c", script)
    return done.out + done.err if done.code else ""


@pytest.fixture
def profile(cluster: Cluster) -> str:
    """Returns the profile's path on the host."""
    path = cluster.base / PROFILES / "docker.json"
    path.write_text(json.dumps(PROFILE))
    return str(path)


def test_the_rules_of_a_profile_hold_where_their_conditions_do(
    cluster: Cluster, busybox_image: str, profile: str
) -> None:
    task = cluster.run("seccomp", image=busybox_image, profile=profile)
    assert "Seccomp:\t2\n" in task.exec("cat", "/proc/1/status").out
    assert DENIED in errors(task, "mkdir /tmp/new")
    assert DENIED in errors(task, "mount -t tmpfs none /tmp")
    assert DENIED in errors(task, "hostname other")
    # Without SYS_TIME the profile has no rule for the call.
    assert errors(task, "busybox chroot / /bin/true") == ""


def test_a_capability_of_the_job_opens_what_the_profile_gives_to_it(
    cluster: Cluster, busybox_image: str, profile: str
) -> None:
    caps = '["CAP_SYS_ADMIN", "CAP_SYS_TIME"]'
    task = cluster.run("seccomp", image=busybox_image, profile=profile, cap_add=caps)
    assert errors(task, "mount -t tmpfs none /tmp && busybox umount /tmp") == ""
    assert DENIED in errors(task, "busybox chroot / /bin/true")
    assert DENIED in errors(task, "mkdir /tmp/new")


def test_a_profile_elsewhere_than_where_the_operator_keeps_them_is_refused(
    cluster: Cluster, containerd: ContainerdDaemon, busybox_image: str
) -> None:
    story = cluster.failure("seccomp", image=busybox_image, profile="/etc/passwd")
    assert "cannot load seccomp profile" in story
    assert "root:" not in story
    assert containerd.ctr("containers", "ls", "-q") == ""
