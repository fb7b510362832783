"""A task's resources of the host, checked before a pull and before any creation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actors.model.nomad import DeviceConfig, MountConfig, TaskConfig
from actors.model.settings import DeviceOption, DriverSettings, MountOption, TaskOptions
from actors.provision import host_resources, netns
from actors.provision.netns import Network
from containerd import runtimes
from containerd.runtimes import Runtime
from containerd.spec.mounts import MountPoint
from proto.errors import DriverError

PINS = Path("/run/pins/c")


@pytest.fixture
def alloc(tmp_path: Path) -> Path:
    """Creates an allocation's directories as Nomad does."""
    base = tmp_path / "a"
    for name in ("alloc/logs", "alloc/data", "web/local/x", "web/secrets", "web/private"):
        (base / name).mkdir(parents=True)
    return base


def gather(alloc: Path, *mounts: MountOption, **more: Any) -> host_resources.HostParts:
    fields = {key: more.pop(key) for key in ("mounts", "devices", "env") if key in more}
    task = TaskConfig(id="a/web/1", name="web", alloc_id="a", alloc_dir=str(alloc), **fields)
    settings = DriverSettings(cdi_spec_dirs=(str(alloc.parent / "cdi"),))
    options = TaskOptions(image="x", mounts=mounts, **more.pop("options", {}))
    return host_resources.gather(
        settings, task, options, hostname="web-1", pins=PINS, runtime=Runtime(name=runtimes.DEFAULT)
    )


def held(parts: host_resources.HostParts) -> dict[str, str]:
    """Returns the source of each target, as a path in the allocation."""
    by_pin = {f"{PINS}/{number}": source.path for number, source in enumerate(parts.pinned)}
    return {point.target: by_pin.get(point.source, point.source) for point in parts.mounts}


def by_target(parts: host_resources.HostParts) -> dict[str, MountPoint]:
    return {point.target: point for point in parts.mounts}


def test_the_allocations_directories_are_there_and_its_logs_are_read_only(alloc: Path) -> None:
    parts = gather(alloc)
    assert held(parts) == {
        "/alloc": "alloc",
        "/alloc/logs": "alloc/logs",
        "/local": "web/local",
        "/secrets": "web/secrets",
        "/etc/hosts": "web/.etc/hosts",
        "/etc/hostname": "web/.etc/hostname",
        "/etc/resolv.conf": "web/.etc/resolv.conf",
    }
    assert by_target(parts)["/alloc/logs"].readonly
    assert not by_target(parts)["/local"].readonly


def test_name_files_are_the_tasks_own_and_read_only_with_its_root(alloc: Path) -> None:
    parts = gather(alloc)
    assert set(parts.files) == {"hosts", "hostname", "resolv.conf"}
    assert parts.files["hostname"] == "web-1\n"
    assert not by_target(parts)["/etc/hosts"].readonly
    sealed = by_target(gather(alloc, options={"readonly_rootfs": True}))
    assert all(sealed[f"/etc/{name}"].readonly for name in parts.files)


def test_a_jobs_own_mount_at_a_name_file_takes_its_place(alloc: Path) -> None:
    own = MountOption(type="bind", source="local/x", target="/etc/hosts", options=("rbind", "ro"))
    parts = gather(alloc, own)
    assert held(parts)["/etc/hosts"] == "web/local/x"
    assert "hosts" not in parts.files


def test_nomad_says_where_the_directories_are(alloc: Path) -> None:
    places = gather(alloc, env={"NOMAD_TASK_DIR": "/work", "NOMAD_ALLOC_DIR": "/shared"})
    assert held(places)["/work"] == "web/local"
    assert held(places)["/shared/logs"] == "alloc/logs"


@pytest.mark.parametrize("source", ["../alloc", "alloc", "ABSOLUTE"])
def test_the_logs_stay_read_only_whatever_way_a_job_takes_to_them(alloc: Path, source: str) -> None:
    source = f"{alloc}/alloc" if source == "ABSOLUTE" else source
    parts = gather(
        alloc,
        MountOption(type="bind", source=source, target="/all", options=("rbind", "rw")),
        MountOption(type="bind", source=f"{source}/logs", target="/logs", options=("rbind", "rw")),
    )
    points = by_target(parts)
    assert held(parts)["/all/logs"] == "alloc/logs"
    assert points["/all/logs"].readonly
    assert not points["/all"].readonly
    assert points["/logs"].readonly


def test_a_volume_is_a_bind_and_a_relative_source_is_held(alloc: Path) -> None:
    parts = gather(
        alloc,
        MountOption(source="local/x", target="/x", options=("rbind", "ro")),
        MountOption(type="bind", source="/", target="/host", options=("rbind", "ro")),
        MountOption(type="tmpfs", target="/t", options=("size=1m",)),
    )
    assert held(parts)["/x"] == "web/local/x"
    assert held(parts)["/host"] == "/"
    assert by_target(parts)["/t"].type == "tmpfs"
    assert "tmpfs" not in {source.path for source in parts.pinned}


def test_a_named_volume_is_refused_with_the_way_out(alloc: Path) -> None:
    with pytest.raises(DriverError, match=r"'db' is the name of a volume.*no named volumes"):
        gather(alloc, MountOption(source="db", target="/x", options=("rbind", "ro")))


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (MountOption(type="bind", source="local/no", target="/x"), "mounts: source .*local/no"),
        (MountOption(type="bind", source="/no/such", target="/x"), "'/no/such' does not exist"),
        (MountOption(type="bind", source="local/x", target="/proc/x"), "container's own"),
        (MountOption(type="ext4", source="/dev/sda", target="/x"), "is not one of"),
    ],
)
def test_what_cannot_be_mounted_is_said_before_the_pull(
    alloc: Path, option: MountOption, text: str
) -> None:
    with pytest.raises(DriverError, match=text):
        gather(alloc, option)


def test_a_fault_on_every_node_is_reported_before_a_fault_of_this_node(alloc: Path) -> None:
    missing = MountOption(type="bind", source="/no/such", target="/a")
    outside = MountOption(type="bind", source="private", target="/b")
    twice = MountOption(type="tmpfs", target="/a")
    unknown = MountOption(type="ext4", source="/x", target="/c")
    device = {"options": {"devices": (DeviceOption(host_path="/dev/no-such"),)}}
    faults = [missing, outside, twice, unknown]
    texts = ["does not exist on this node", "is not in the task's", "two of them", "is not one of"]
    for mounts, text in (
        (faults, texts[3]),
        (faults[:3], texts[1]),
        ([missing, twice], texts[2]),
        ([missing], texts[0]),
        ([], "/dev/no-such"),
    ):
        with pytest.raises(DriverError, match=text):
            gather(alloc, *mounts, **device)


def test_two_mounts_at_one_place_are_a_mistake_but_a_job_may_replace_the_drivers(
    alloc: Path,
) -> None:
    one = MountOption(type="bind", source="/srv", target="/x")
    two = MountOption(type="tmpfs", target="/x/")
    with pytest.raises(DriverError, match="two of them are at /x"):
        gather(alloc, one, two)
    parts = gather(alloc, MountOption(type="tmpfs", target="/secrets"))
    assert [p.type for p in parts.mounts if p.target == "/secrets"] == ["bind", "tmpfs"]


def test_nomads_volumes_keep_their_propagation_and_must_exist(alloc: Path) -> None:
    volume = MountConfig(
        task_path="/data", host_path=str(alloc), readonly=True, propagation_mode="host-to-task"
    )
    parts = gather(alloc, mounts=(volume,))
    assert by_target(parts)["/data"].options == ("rbind", "rslave", "ro")
    gone = MountConfig(task_path="/data", host_path="/no/such", readonly=False)
    with pytest.raises(DriverError, match="volume_mount: source '/no/such' does not exist"):
        gather(alloc, mounts=(gone,))


def test_devices_come_from_plugins_and_the_job_and_the_job_wins(alloc: Path) -> None:
    given = (
        DeviceConfig(host_path="/dev/zero", task_path="/dev/a", cgroup_permissions="r"),
        DeviceConfig(host_path="/dev/zero", task_path="/dev/b", cgroup_permissions="rw"),
    )
    own = DeviceOption(host_path="/dev/null", container_path="/dev/b", cgroup_permissions="rwm")
    parts = gather(alloc, devices=given, options={"devices": (own,)})
    assert [(n.path, n.minor, n.permissions) for n in parts.devices] == [
        ("/dev/a", 5, "r"),
        ("/dev/b", 3, "rwm"),
    ]


def test_a_privileged_task_has_the_hosts_devices(alloc: Path) -> None:
    assert gather(alloc).devices == ()
    names = {node.path for node in gather(alloc, options={"privileged": True}).devices}
    assert "/dev/full" in names


def test_cdi_brings_mounts_whose_sources_must_exist(alloc: Path) -> None:
    cdi = alloc.parent / "cdi"
    cdi.mkdir()
    mount = {"hostPath": "/no/lib", "containerPath": "/lib/acme", "options": ["ro", "bind"]}
    document = {
        "kind": "acme.com/gpu",
        "devices": [{"name": "0", "containerEdits": {"env": ["A=1"], "mounts": [mount]}}],
    }
    (cdi / "acme.json").write_text(json.dumps(document))
    with pytest.raises(DriverError, match=r"devices \(CDI\): source '/no/lib' does not exist"):
        gather(alloc, options={"cdi_devices": ("acme.com/gpu=0",)})
    mount["hostPath"] = "/srv"
    (cdi / "acme.json").write_text(json.dumps(document))
    parts = gather(alloc, options={"cdi_devices": ("acme.com/gpu=0",)})
    assert held(parts)["/lib/acme"] == "/srv"
    assert parts.cdi.env == {"A": "1"}


def test_an_ipv6_address_is_advertised_if_the_job_says_so() -> None:
    task = TaskConfig(id="a/t/1", name="t", alloc_id="a")
    both = Network(addresses=("10.0.0.5", "fd00::5"))
    for ipv6, address in ((False, "10.0.0.5"), (True, "fd00::5")):
        found = netns.override(task, both, ipv6=ipv6)
        assert found is not None
        assert found.addr == address
    with pytest.raises(DriverError, match="the task's network has no IPv6 address"):
        netns.override(task, Network(addresses=("10.0.0.5",)), ipv6=True)
    with pytest.raises(DriverError, match="the task's network has no IPv6 address"):
        netns.override(task, None, ipv6=True)
