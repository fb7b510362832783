"""From a job's options to the spec's capabilities, filters and hidden paths."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from actors.model import confinement
from actors.model.gates import OPEN, Gates
from actors.model.settings import DriverSettings, SecurityOptions, TaskOptions
from containerd.image.config import ImageConfig
from containerd.security import capabilities
from containerd.security.policy import Host, Security, SecurityRequest, decide, for_task, this_host
from containerd.security.seccomp_default import DEFAULT_PROFILE
from containerd.spec.build import SpecInputs, build_spec
from containerd.spec.devices import DeviceNode
from containerd.spec.exec_process import Command, process_for_exec
from containerd.spec.users import ResolvedUser
from proto.errors import Code, DriverError
from tests.support.kernel.seccomp import docker_profile, mask_of, outcome

KERNEL = capabilities.of_kernel(40)
HOST = Host(
    machine="x86_64",
    kernel_release="6.1.0-18-amd64",
    kernel_capabilities=KERNEL,
    own_capabilities=frozenset(KERNEL),
    apparmor=True,
)


def decided(host: Host = HOST, gates: Gates = OPEN, **options: Any) -> Security:
    settings = DriverSettings(gates=gates)
    request = confinement.request(settings, TaskOptions(image="x", **options))
    return decide(request, host, DEFAULT_PROFILE if request.seccomp else None)


def document(given: Security, **fields: Any) -> dict[str, Any]:
    return build_spec(
        SpecInputs(
            image_config=ImageConfig(cmd=("sh",)),
            user=ResolvedUser(uid=0, gid=0),
            hostname="web",
            cgroup_path="/x",
            security=given,
            **fields,
        )
    )


def options_of(made: dict[str, Any], target: str) -> list[str]:
    return next(m["options"] for m in made["mounts"] if m["destination"] == target)


def test_a_plain_task_has_the_default_capabilities_in_three_sets_only() -> None:
    process = document(decided())["process"]
    assert set(process["capabilities"]) == {"bounding", "effective", "permitted"}
    for names in process["capabilities"].values():
        assert set(names) == set(capabilities.DEFAULT)


def test_setuid_programs_work_with_and_without_a_filter() -> None:
    assert document(decided())["process"]["noNewPrivileges"] is False
    assert document(decided(seccomp=True))["process"]["noNewPrivileges"] is False


def test_a_plain_task_sees_no_secrets_of_the_host_and_has_no_filter() -> None:
    made = document(decided())
    assert "/proc/kcore" in made["linux"]["maskedPaths"]
    assert "/proc/sys" in made["linux"]["readonlyPaths"]
    assert "seccomp" not in made["linux"]
    assert "apparmorProfile" not in made["process"]
    assert "ro" in options_of(made, "/sys")
    assert "ro" in options_of(made, "/sys/fs/cgroup")


def test_the_filter_follows_the_capabilities_that_the_task_will_have() -> None:
    plain = document(decided(seccomp=True))["linux"]["seccomp"]
    assert outcome(plain, "mount")[0] == "SCMP_ACT_ERRNO"
    admin = document(decided(seccomp=True, cap_add=("sys_admin",)))["linux"]["seccomp"]
    assert outcome(admin, "mount")[0] == "SCMP_ACT_ALLOW"
    dropped = decided(seccomp=True, cap_add=("SYS_ADMIN",), cap_drop=("SYS_ADMIN", "SYS_CHROOT"))
    assert dropped.seccomp is not None
    assert outcome(dropped.seccomp, "mount")[0] == "SCMP_ACT_ERRNO"
    assert outcome(dropped.seccomp, "chroot")[0] == "SCMP_ACT_ERRNO"


def test_a_privileged_task_has_all_and_nothing_is_hidden_from_it() -> None:
    node = DeviceNode(path="/dev/loop0", kind="b", major=7, minor=0)
    made = document(decided(privileged=True), devices=(node,))
    assert made["process"]["capabilities"]["bounding"] == list(KERNEL)
    assert made["process"]["noNewPrivileges"] is False
    assert made["linux"]["maskedPaths"] == made["linux"]["readonlyPaths"] == []
    assert "seccomp" not in made["linux"]
    assert made["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert [device["path"] for device in made["linux"]["devices"]] == ["/dev/loop0"]
    for target in ("/sys", "/sys/fs/cgroup"):
        assert "rw" in options_of(made, target)
        assert "ro" not in options_of(made, target)


def test_a_privileged_task_has_no_more_than_kernel_and_driver_have() -> None:
    host = dataclasses.replace(
        HOST,
        kernel_capabilities=capabilities.of_kernel(37),
        own_capabilities=frozenset(KERNEL) - {"CAP_SYS_MODULE"},
    )
    expected = set(capabilities.of_kernel(37)) - {"CAP_SYS_MODULE"}
    assert set(decided(host, privileged=True).capabilities) == expected
    assert set(decided(host, cap_add=("all",)).capabilities) == expected


def test_options_beside_privileged_still_count() -> None:
    made = decided(privileged=True, cap_drop=("SYS_MODULE",), seccomp=True, apparmor_profile="web")
    assert set(KERNEL) - set(made.capabilities) == {"CAP_SYS_MODULE"}
    assert made.seccomp is not None
    assert outcome(made.seccomp, "finit_module")[0] == "SCMP_ACT_ERRNO"
    assert made.apparmor_profile == "web"


def test_an_apparmor_profile_is_passed_where_there_is_apparmor() -> None:
    made = document(decided(apparmor_profile="docker-default"))
    assert made["process"]["apparmorProfile"] == "docker-default"
    process = process_for_exec(made, Command(words=["sh"], terminal=False))
    assert process["apparmorProfile"] == "docker-default"
    assert process["capabilities"] == made["process"]["capabilities"]


def test_an_apparmor_profile_is_refused_where_there_is_none() -> None:
    host = dataclasses.replace(HOST, apparmor=False)
    with pytest.raises(DriverError, match="AppArmor is not enabled on this node") as caught:
        decided(host, apparmor_profile="docker-default")
    assert caught.value.code is Code.INVALID


def test_items_of_security_opt_become_fields_of_the_spec() -> None:
    made = document(
        decided(
            security_opt=SecurityOptions(
                no_new_privileges=True,
                seccomp="builtin",
                apparmor="web",
                system_paths=True,
                writable_cgroups=True,
            )
        )
    )
    assert made["process"]["noNewPrivileges"] is True
    assert made["process"]["apparmorProfile"] == "web"
    assert outcome(made["linux"]["seccomp"], "mount")[0] == "SCMP_ACT_ERRNO"
    assert made["linux"]["maskedPaths"] == made["linux"]["readonlyPaths"] == []
    assert "rw" in options_of(made, "/sys/fs/cgroup")
    assert "ro" in options_of(made, "/sys")


def test_unconfined_items_set_no_filter_and_no_profile() -> None:
    free = SecurityOptions(seccomp="unconfined", apparmor="unconfined")
    made = document(decided(dataclasses.replace(HOST, apparmor=False), security_opt=free))
    assert "seccomp" not in made["linux"]
    assert "apparmorProfile" not in made["process"]


BOTH = Gates(default_seccomp=True, default_apparmor="usual")


@pytest.mark.parametrize(
    ("options", "filtered", "profile"),
    [
        ({}, True, "usual"),
        ({"seccomp": True, "apparmor_profile": "web"}, True, "web"),
        ({"privileged": True}, False, ""),
        ({"privileged": True, "seccomp": True, "apparmor_profile": "web"}, True, "web"),
        ({"security_opt": SecurityOptions(seccomp="unconfined")}, False, "usual"),
        ({"security_opt": SecurityOptions(apparmor="unconfined")}, True, ""),
        ({"apparmor_profile": "unconfined"}, True, ""),
    ],
)
def test_the_nodes_defaults_confine_each_task_but_privileged_and_unconfined_tasks(
    options: dict[str, Any], filtered: bool, profile: str
) -> None:
    made = decided(gates=BOTH, **options)
    assert (made.seccomp is not None, made.apparmor_profile) == (filtered, profile)


def test_the_nodes_profile_is_left_out_where_the_kernel_has_no_apparmor() -> None:
    made = decided(dataclasses.replace(HOST, apparmor=False), BOTH)
    assert made.apparmor_profile == ""
    assert made.seccomp is not None


@pytest.mark.parametrize(
    ("item", "options"),
    [
        ({"seccomp": "unconfined"}, {"seccomp": True}),
        ({"seccomp": "a.json"}, {"seccomp": True, "seccomp_profile": "b.json"}),
        ({"seccomp": "builtin"}, {"seccomp": True, "seccomp_profile": "b.json"}),
        ({"apparmor": "a"}, {"apparmor_profile": "b"}),
        ({"apparmor": "unconfined"}, {"apparmor_profile": "b"}),
    ],
)
def test_two_options_that_contradict_each_other_are_refused(
    item: dict[str, Any], options: dict[str, Any]
) -> None:
    with pytest.raises(DriverError, match=r"security_opt: .* contradicts ") as caught:
        decided(security_opt=SecurityOptions(**item), **options)
    assert caught.value.code is Code.INVALID


def test_the_same_wish_may_stand_twice() -> None:
    twice = confinement.wishes(
        TaskOptions(
            image="x",
            seccomp=True,
            seccomp_profile="a.json",
            apparmor_profile="web",
            security_opt=SecurityOptions(seccomp="a.json", apparmor="web"),
        )
    )
    assert (twice.seccomp, twice.seccomp_profile, twice.apparmor) == (True, "a.json", "web")


def test_privileged_is_refused_where_the_operator_says_so() -> None:
    settings = DriverSettings(gates=Gates(allow_privileged=False))
    request = confinement.request(settings, TaskOptions(image="x", privileged=True))
    with pytest.raises(DriverError) as caught:
        for_task(request)
    assert caught.value.code is Code.DENIED
    assert (
        "Running privileged jobs are not allowed. Set allow_privileged to true in plugin config"
        " to allow running privileged jobs." in str(caught.value)
    )


def test_a_profile_without_seccomp_is_refused() -> None:
    request = SecurityRequest(seccomp_profile="web.json", seccomp_profile_dir="/nowhere")
    text = "seccomp must be set to true, if using a custom seccomp_profile."
    with pytest.raises(DriverError, match=text):
        for_task(request)


def test_a_custom_profile_takes_the_place_of_the_default_one(tmp_path: Path) -> None:
    (tmp_path / "web.json").write_text(json.dumps(docker_profile()))
    made = for_task(
        SecurityRequest(
            seccomp=True,
            seccomp_profile="web.json",
            seccomp_profile_dir=str(tmp_path),
            cap_add=("SYS_TIME",),
        )
    )
    assert made.seccomp is not None
    assert outcome(made.seccomp, "mkdir") == ("SCMP_ACT_ERRNO", 38)
    assert outcome(made.seccomp, "chroot")[0] == "SCMP_ACT_ERRNO"
    assert outcome(made.seccomp, "keyctl")[0] == "SCMP_ACT_ALLOW"


def test_this_machine_is_described_by_its_own_proc() -> None:
    host = this_host()
    assert host.kernel_capabilities[:2] == ("CAP_CHOWN", "CAP_DAC_OVERRIDE")
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert len(host.kernel_capabilities) == min(last + 1, len(capabilities.NAMES))
    status = Path("/proc/self/status").read_text()
    mask = int(status.split("CapEff:")[1].split()[0], 16)
    assert mask_of(host.own_capabilities) == mask & ((1 << 41) - 1)
