"""The operator's gates: from the plugin block to the refusal of a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest

from actors.model import confinement
from actors.model.gates import HARDENED, Gates
from actors.model.settings import DeviceOption, DriverSettings, SecurityOptions, TaskOptions
from actors.provision import gates
from actors.provision.mount_sources import Source
from containerd.security import policy
from plugin import options
from plugin.options import gates as gate_options
from plugin.options import hcl_schema
from proto.errors import Code, DriverError


def settings(**block: Any) -> DriverSettings:
    return options.driver_settings(msgpack.packb(block))


def refusal(allow: Gates, **job: Any) -> str:
    with pytest.raises(DriverError) as caught:
        gates.check(allow, TaskOptions(image=job.pop("image", "redis:7"), **job))
    assert caught.value.code is Code.DENIED
    return str(caught.value)


CLOSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"allow_privileged": False}, {"pid_mode": "host"}, 'cannot apply "pid_mode" configuration'),
    ({"allow_privileged": False}, {"ipc_mode": "host"}, 'cannot apply "ipc_mode" configuration'),
    ({"allow_privileged": False}, {"uts_mode": "host"}, 'cannot apply "uts_mode" configuration'),
    (
        {"allow_privileged": False, "allowed_modes": {"pid": ["host"]}},
        {"pid_mode": "task:web"},
        'allowed_modes { pid = ["task:web"] }',
    ),
    (
        {"allow_host_network": False, "allowed_modes": {"network": ["ns:*"]}},
        {"network_mode": "ns:/proc/1/ns/net"},
        "allow_host_network is false",
    ),
    (
        {"allow_privileged": False},
        {"network_mode": "container:x"},
        'cannot apply "network_mode" configuration',
    ),
    ({"allow_privileged": False}, {"cgroupns": "host"}, 'cannot apply "cgroupns" configuration'),
    (
        {"allow_memory_hard_limit": False},
        {"memory_hard_limit_mb": 256},
        "allow_memory_hard_limit is false",
    ),
    ({}, {"annotations": {"a.b/c": "d"}}, "annotations: 'a.b/c' is not allowed"),
    (
        {"allow_annotations": ["com.example.*"]},
        {"annotations": {"org.systemd.property.CPUWeight": "9"}},
        "allow_annotations is com.example.*",
    ),
    (
        {"allow_host_network": False},
        {"host_network": True, "network_mode": "host"},
        'network_mode = "host" is not allowed on this node: allow_host_network is false',
    ),
    ({"allow_sysctls": ["net.*"]}, {"sysctl": {"kernel.shmmax": "1"}}, "allow_sysctls is net.*"),
    ({"allow_devices": []}, {"devices": (DeviceOption(host_path="/dev/fuse"),)}, "is empty"),
    (
        {"allow_devices": ["/dev/dri/*"]},
        {"devices": (DeviceOption(host_path="/dev/dri/../mem"),)},
        "'/dev/mem' is not allowed",
    ),
    ({"allow_devices": ["/dev/*"]}, {"cdi_devices": ("vendor.com/gpu=0",)}, "vendor.com/gpu=0"),
    ({"allow_snapshotters": ["native"]}, {"snapshotter": "stargz"}, "allow_snapshotters"),
    ({"allow_registries": ["ghcr.io"]}, {}, "'docker.io/library/redis' is not allowed"),
    ({"allow_registries": ["docker.io/team/*"]}, {"image": "other/x"}, "docker.io/other/x"),
    ({"pids_limit": 100}, {"pids_limit": 101}, "pids_limit cannot be greater than nomad plugin"),
    (
        {"no_new_privileges": True},
        {"security_opt": SecurityOptions(no_new_privileges=False)},
        "no_new_privileges is true",
    ),
    (
        {"allow_privileged": False},
        {"security_opt": SecurityOptions(system_paths=True)},
        "systempaths=unconfined is not allowed on this node: allow_privileged is false",
    ),
    (
        {"allow_privileged": False},
        {"security_opt": SecurityOptions(writable_cgroups=True)},
        "writable-cgroups is not allowed on this node: allow_privileged is false",
    ),
    (
        {"allow_unconfined": False},
        {"security_opt": SecurityOptions(seccomp="unconfined")},
        "seccomp=unconfined is not allowed on this node: allow_unconfined is false",
    ),
    ({"allow_unconfined": False}, {"apparmor_profile": "unconfined"}, "apparmor=unconfined"),
    ({"allow_apparmor": ["web-*"]}, {"apparmor_profile": "firefox"}, "allow_apparmor is web-*"),
    (
        {"hardened": True},
        {"security_opt": SecurityOptions(apparmor="firefox")},
        "allow_apparmor is empty",
    ),
]
OPEN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"allow_privileged": False, "allowed_modes": {"pid": ["host"]}}, {"pid_mode": "host"}),
    (
        {"allow_privileged": False, "allowed_modes": {"pid": ["task:*"]}},
        {"pid_mode": "task:web"},
    ),
    (
        {"allow_privileged": False, "allowed_modes": {"network": ["ns:/var/run/netns/*"]}},
        {"network_mode": "ns:/var/run/netns/vpn"},
    ),
    (
        {"allow_privileged": False, "allow_host_network": False},
        {"network_mode": "task:web"},
    ),
    ({"allowed_modes": {"pid": []}}, {"pid_mode": "host", "ipc_mode": "host"}),
    ({"allow_privileged": False, "allowed_modes": {"cgroupns": ["host"]}}, {"cgroupns": "host"}),
    ({"allow_memory_hard_limit": False}, {"memory_reservation_bytes": 1 << 20}),
    ({"allow_annotations": ["com.example.*"]}, {"annotations": {"com.example.a": "b"}}),
    ({"allow_host_network": False}, {}),
    ({"allow_sysctls": ["net.*"]}, {"sysctl": {"net.core.somaxconn": "1"}}),
    ({"allow_devices": ["/dev/fuse"]}, {"devices": (DeviceOption(host_path="/dev//fuse"),)}),
    ({"allow_devices": ["vendor.com/*"]}, {"cdi_devices": ("vendor.com/gpu=0",)}),
    ({"allow_snapshotters": ["native"]}, {"snapshotter": "native"}),
    ({"allow_snapshotters": ["native"]}, {}),
    ({"allow_registries": ["docker.io"]}, {}),
    ({"allow_registries": ["docker.io/team/*"]}, {"image": "team/x:1"}),
    ({"allow_registries": []}, {"load": "local/image.tar"}),
    ({"pids_limit": 100}, {"pids_limit": 100}),
    ({}, {"pid_mode": "host", "uts_mode": "host", "host_network": True}),
    ({}, {"security_opt": SecurityOptions(system_paths=True, writable_cgroups=True)}),
    ({"no_new_privileges": True}, {"security_opt": SecurityOptions(no_new_privileges=True)}),
    ({"allow_unconfined": False}, {"security_opt": SecurityOptions(seccomp="builtin")}),
    ({"allow_apparmor": ["web-*"]}, {"apparmor_profile": "web-1"}),
    (
        {"default_apparmor": "usual", "allow_apparmor": []},
        {"security_opt": SecurityOptions(apparmor="usual")},
    ),
    ({"default_seccomp": True}, {"security_opt": SecurityOptions(seccomp="unconfined")}),
]


@pytest.mark.parametrize(("block", "job", "words"), CLOSED)
def test_a_closed_gate_names_the_option_and_the_gate(
    block: dict[str, Any], job: dict[str, Any], words: str
) -> None:
    assert words in refusal(settings(**block).gates, **job)


def test_all_closed_gates_are_named_at_once_and_each_remedy_once() -> None:
    text = refusal(
        settings(hardened=True, pids_limit=100).gates,
        pid_mode="host",
        host_network=True,
        devices=(DeviceOption(host_path="/dev/fuse"), DeviceOption(host_path="/dev/kvm")),
        pids_limit=101,
    )
    assert text.count("Error in creating container: ") == 1
    for part in (
        'cannot apply "pid_mode" configuration',
        "host_network = true is not allowed",
        "'/dev/fuse' is not allowed",
        "'/dev/kvm' is not allowed",
        "pids_limit cannot be greater",
        "remove pid_mode",
    ):
        assert part in text, part
    assert text.count("remove the option, or ask the operator of the node") == 1


def test_the_error_of_many_forbidden_options_has_an_end() -> None:
    devices = tuple(DeviceOption(host_path=f"/dev/d{number}") for number in range(1000))
    text = refusal(settings(allow_devices=[]).gates, devices=devices)
    assert text.count("is not allowed") == 20
    assert text.endswith("and more (remove the option, or ask the operator of the node)")


@pytest.mark.parametrize(("block", "job"), OPEN)
def test_an_open_gate_lets_the_job_pass(block: dict[str, Any], job: dict[str, Any]) -> None:
    gates.check(settings(**block).gates, TaskOptions(image=job.pop("image", "redis:7"), **job))


@pytest.mark.parametrize(
    ("block", "kind", "words"),
    [
        ({"allow_host_network": False}, "network", "allow_host_network is false"),
        ({"allow_privileged": False}, "pid", 'cannot apply "pid_mode" configuration'),
        ({"allow_privileged": False}, "ipc", 'cannot apply "ipc_mode" configuration'),
    ],
)
def test_another_process_is_no_way_into_the_nodes_namespaces(
    block: dict[str, Any], kind: str, words: str
) -> None:
    with pytest.raises(DriverError) as caught:
        gates.check_shared(settings(**block).gates, {kind})
    assert words in str(caught.value)
    gates.check_shared(settings().gates, {"network", "pid", "ipc"})
    gates.check_shared(settings(**block).gates, ())


def granted(allow: DriverSettings, **job: Any) -> tuple[str, ...]:
    request = confinement.request(allow, TaskOptions(image="x", **job))
    return policy.decide(request, policy.this_host(), None).capabilities


def test_capabilities_outside_of_allow_caps_are_taken_from_the_defaults_too() -> None:
    allow = settings(allow_caps=["chown", "NET_ADMIN", "cap_kill"])
    assert set(granted(allow)) == {"CAP_CHOWN", "CAP_KILL"}
    assert set(granted(allow, cap_add=("net_admin",))) == {"CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN"}
    assert "CAP_NET_RAW" in granted(settings(allow_caps=["all"]))
    assert "CAP_NET_RAW" in granted(settings())


@pytest.mark.parametrize(("gate", "wish"), [(True, None), (True, True), (False, True)])
def test_the_gate_is_the_least_that_a_job_gets(gate: bool, wish: bool | None) -> None:
    wanted = TaskOptions(image="x", security_opt=SecurityOptions(no_new_privileges=wish))
    assert confinement.request(settings(no_new_privileges=gate), wanted).no_new_privileges


@pytest.mark.parametrize("added", ["net_raw", "all", "SYS_ADMIN"])
def test_a_capability_that_is_not_allowed_is_refused(added: str) -> None:
    with pytest.raises(DriverError, match="does not allow the following capabilities") as caught:
        granted(settings(allow_caps=["chown"]), cap_add=(added,))
    assert caught.value.code is Code.DENIED
    assert "allow_caps in the driver's plugin block is chown" in str(caught.value)


def test_hardened_closes_and_a_value_beside_wins() -> None:
    assert settings(hardened=True).gates == HARDENED
    mixed = settings(hardened=True, allow_host_network=True, volumes={"enabled": True}).gates
    assert mixed.allow_host_network
    assert mixed.volumes
    assert not mixed.allow_privileged
    assert settings(hardened=True, volumes={"allowed_paths": ["/srv"]}).gates.volumes
    closed = settings(volumes={"enabled": False, "allowed_paths": ["/srv"]}).gates
    assert not closed.volumes


def test_a_namespace_overrides_the_gates_of_the_node() -> None:
    made = settings(
        hardened=True,
        allow_devices=["/dev/fuse"],
        namespace={"infra": {"allow_privileged": True, "allow_devices": None}, "default": None},
    )
    assert made.gates_of("infra").allow_privileged
    assert made.gates_of("infra").allow_devices == ("/dev/fuse",)
    assert not made.gates_of("infra").volumes
    assert not made.gates_of("web").allow_privileged
    assert made.gates_of("").allow_privileged is False


def test_wrong_values_are_named_with_their_place() -> None:
    with pytest.raises(DriverError) as caught:
        settings(allow_caps=["root"], namespace={"web": {"allow_caps": ["x"], "hardened": True}})
    assert "allow_caps: 'root' is no capability" in str(caught.value)
    assert "namespace.web.allow_caps: 'x' is no capability" in str(caught.value)
    assert "namespace.web.hardened: no such option" in str(caught.value)


def test_an_absent_gate_is_absent_in_the_schema_too() -> None:
    # Nomad sends the default of a schema like a value of the operator.
    schema = hcl_schema.schema(options.DRIVER_OPTIONS).object.attributes
    assert schema["allow_privileged"].WhichOneof("block") == "Attr"
    nested = schema["namespace"].block_map.nested.object.attributes
    assert nested["allow_privileged"].WhichOneof("block") == "Attr"
    assert list(schema["namespace"].block_map.labels) == ["name"]


def denied(allow: Gates, path: Path) -> str:
    with pytest.raises(DriverError) as caught:
        gates.volume(allow, Source(path=str(path)))
    assert caught.value.code is Code.DENIED
    return str(caught.value)


def test_volumes_are_compared_with_the_path_that_the_kernel_reaches(tmp_path: Path) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "in/away").symlink_to(tmp_path / "out")
    allow = settings(volumes={"allowed_paths": [f"{tmp_path}/in", f"{tmp_path}/x*"]}).gates
    made = gates.volume(allow, Source(path=f"{tmp_path}/in/deep"))
    assert made == Source(path=f"{tmp_path}/in/deep"[1:], root="/", with_mounts=True)
    assert f"which is '{tmp_path}/out'" in denied(allow, tmp_path / "in/away")
    assert f"allowed_paths }} is {tmp_path}/in" in denied(allow, tmp_path / "in/../out")
    own = Source(path="t/local", root=str(tmp_path))
    assert gates.volume(allow, own) == own


def test_without_volumes_only_the_allocation_is_left(tmp_path: Path) -> None:
    allow = settings(volumes={"enabled": False}).gates
    assert "volumes { enabled } is false" in denied(allow, tmp_path)
    own = Source(path="t/local", root=str(tmp_path))
    assert gates.volume(allow, own) == own
    assert gates.volume(Gates(), Source(path="/etc")) == Source(path="/etc")


def test_open_gates_are_the_options_without_a_limit() -> None:
    assert settings(hardened=True).gates.open() == ("allow_registries", "allow_snapshotters")
    assert "volumes" in settings().gates.open()
    assert "volumes" not in settings(volumes={"allowed_paths": ["/srv"]}).gates.open()
    names = {option.name for option in gate_options.GATES}
    closed = {"exec_options", "allow_annotations"}
    assert set(Gates().open()) == names - {"allow_runtimes", "allowed_modes"} - closed
    assert "exec_options" in Gates(exec_options=("user", "root")).open()
