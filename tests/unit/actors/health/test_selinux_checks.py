"""Findings of the doctor about SELinux."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.health import selinux_checks
from actors.health.findings import Verdict
from actors.model.settings import DriverSettings
from tests.support.plugin.services import services

CONTEXTS = 'process = "system_u:system_r:container_t:s0"\nfile = "u:object_r:container_file_t:s0"\n'


@pytest.mark.parametrize(
    ("wanted", "policy", "package", "verdict", "words"),
    [
        (False, False, False, None, ""),
        (False, True, True, Verdict.WARN, "have the context of containerd's processes"),
        (True, False, True, Verdict.WARN, "the kernel has no SELinux policy"),
        (True, True, False, Verdict.FAIL, "has no contexts of containers: no task starts"),
        (True, True, True, Verdict.OK, "tasks run as system_u:system_r:container_t:s0"),
    ],
)
def test_the_doctor_says_whether_tasks_are_confined(
    tmp_path: Path, wanted: bool, policy: bool, package: bool, verdict: Verdict | None, words: str
) -> None:
    files = {"sys/fs/selinux/enforce": "1"} if policy else {}
    if package:
        files["etc/selinux/targeted/contexts/lxc_contexts"] = CONTEXTS
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    node = services(DriverSettings(selinux_enabled=wanted))
    found = list(selinux_checks.check(node, tmp_path))
    assert [finding.verdict for finding in found] == ([verdict] if verdict else [])
    assert all(words in finding.text for finding in found)
    assert all(finding.advice for finding in found if finding.verdict is not Verdict.OK)


def test_the_doctor_names_a_context_that_the_policy_does_not_know(tmp_path: Path) -> None:
    policy = tmp_path / "sys/fs/selinux"
    policy.mkdir(parents=True)
    (policy / "enforce").write_text("1")
    (policy / "context").symlink_to("/proc/self/coredump_filter")  # answers with EINVAL
    names = tmp_path / "etc/selinux/targeted/contexts/lxc_contexts"
    names.parent.mkdir(parents=True)
    names.write_text(CONTEXTS)
    (found,) = selinux_checks.check(services(DriverSettings(selinux_enabled=True)), tmp_path)
    assert found.verdict is Verdict.FAIL
    assert "does not know system_u:system_r:container_t:s0: no task starts" in found.text
    assert "container-selinux" in found.advice
