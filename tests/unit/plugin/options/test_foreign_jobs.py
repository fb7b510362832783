"""Jobs of other drivers: each option is taken, ignored with a warning, or refused with advice."""

from __future__ import annotations

import pytest

from actors.model.settings import TaskOptions
from plugin import options
from plugin.host.agent import hcl_config
from plugin.options import hcl_schema
from proto.errors import DriverError

_MAP = {"a": "b"}
_MOUNT = {
    "type": "volume",
    "target": "/t",
    "source": "local/s",
    "readonly": True,
    "bind_options": {"propagation": "rslave"},
    "tmpfs_options": {"size": 65536, "mode": 511},
    "volume_options": {
        "no_copy": True,
        "labels": _MAP,
        "driver_config": {"name": "local", "options": _MAP},
    },
}
# Names and types of the task config schemas of Nomad's drivers; the values are of these types. A
# map stands for a block, a list of maps for several blocks; `MAPS` may also be attributes.
DOCKER = {
    "image": "busybox",
    "advertise_ipv6_address": True,
    "args": ["a"],
    "auth": {"username": "u", "password": "p", "email": "a@b.c", "server_address": "r.io"},
    "auth_soft_fail": True,
    "cap_add": ["net_raw"],
    "cap_drop": ["net_raw"],
    "cgroupns": "private",
    "command": "c",
    "container_exists_attempts": 5,
    "cpu_cfs_period": 100000,
    "cpu_hard_limit": True,
    "cpuset_cpus": "0",
    "devices": [
        {"host_path": "/dev/null", "container_path": "/dev/x", "cgroup_permissions": "rwm"}
    ],
    "dns_options": ["ndots:1"],
    "dns_search_domains": ["a.b"],
    "dns_servers": ["9.9.9.9"],
    "entrypoint": ["e"],
    "extra_hosts": ["a:1.2.3.4"],
    "force_pull": True,
    "group_add": ["g"],
    "healthchecks": {"disable": True},
    "hostname": "h",
    "image_pull_timeout": "5m",
    "init": True,
    "interactive": True,
    "ipc_mode": "host",
    "ipv4_address": "10.0.0.1",
    "ipv6_address": "fd00::1",
    "isolation": "process",
    "labels": _MAP,
    "load": "a.tar",
    "logging": {"type": "json-file", "driver": "json-file", "config": {"max-file": "2"}},
    "mac_address": "02:00:00:00:00:01",
    "memory_hard_limit": 256,
    "mount": [_MOUNT],
    "mounts": [_MOUNT],
    "network_aliases": ["n"],
    "network_mode": "bridge",
    "oom_score_adj": 1,
    "pid_mode": "host",
    "pids_limit": 9,
    "port_map": {"http": 80},
    "ports": ["http"],
    "privileged": True,
    "readonly_rootfs": True,
    "runtime": "runc",
    "security_opt": ["no-new-privileges"],
    "shm_size": 1048576,
    "storage_opt": {"size": "1G"},
    "sysctl": {"net.core.somaxconn": "1"},
    "tty": True,
    "ulimit": {"nofile": "1:2"},
    "userns_mode": "host",
    "uts_mode": "host",
    "volume_driver": "local",
    "volumes": ["/a:/b"],
    "work_dir": "/w",
}
PODMAN = {
    "apparmor_profile": "p",
    "arch": "arm64",
    "args": ["a"],
    "auth": {"username": "u", "password": "p", "tls_verify": True},
    "auth_soft_fail": True,
    "cap_add": ["net_raw"],
    "cap_drop": ["net_raw"],
    "command": "c",
    "cpu_cfs_period": 100000,
    "cpu_hard_limit": True,
    "devices": ["/dev/null:/dev/x:r"],
    "entrypoint": "e",
    "extra_hosts": ["a:1.2.3.4"],
    "force_pull": True,
    "hostname": "h",
    "image": "busybox",
    "image_pull_timeout": "5m",
    "init": True,
    "init_path": "/usr/bin/tini",
    "ipc_mode": "private",
    "ipv4_address": "10.0.0.1",
    "ipv6_address": "fd00::1",
    "labels": _MAP,
    "logging": {"driver": "journald", "options": {"tag": "t"}},
    "memory_reservation": "64m",
    "memory_swap": "256m",
    "memory_swappiness": 60,
    "network_mode": "bridge",
    "oom_score_adj": 1,
    "os": "linux",
    "pids_limit": 9,
    "port_map": {"http": 80},
    "ports": ["http"],
    "privileged": True,
    "readonly_rootfs": True,
    "security_opt": ["no-new-privileges"],
    "selinux_opts": ["type:x"],
    "shm_size": "1m",
    "socket": "default",
    "static_ips": ["10.0.0.1"],
    "static_mac": "02:00:00:00:00:01",
    "sysctl": {"net.core.somaxconn": "1"},
    "tmpfs": ["/t:size=1m"],
    "tty": True,
    "ulimit": {"nofile": "1:2"},
    "userns": "auto",
    "variant": "v8",
    "volumes": ["/a:/b"],
    "working_dir": "/w",
}
GO_DRIVERS = {
    "args": ["a"],
    "auth": {"username": "u", "password": "p"},
    "cap_add": ["net_raw"],
    "cap_drop": ["net_raw"],
    "command": "c",
    "cpuset_cpus": "0",
    "cpuset_mems": "0",
    "cwd": "/w",
    "devices": ["/dev/null"],
    "entrypoint": ["e"],
    "extra_hosts": ["a:1.2.3.4"],
    "file_limit": 1024,
    "host_dns": False,
    "host_network": True,
    "hostname": "h",
    "image": "busybox",
    "image_pull_timeout": "5m",
    "mounts": [{"type": "bind", "target": "/t", "source": "/s", "options": ["rbind", "ro"]}],
    "pid_mode": "host",
    "pids_limit": 9,
    "privileged": True,
    "readonly_rootfs": True,
    "seccomp": True,
    "seccomp_profile": "p.json",
    "shm_size": "1m",
    "sysctl": {"net.core.somaxconn": "1"},
}
MAPS = ("labels", "port_map", "storage_opt", "sysctl", "ulimit")
JOBS = [
    pytest.param(name, form, id=f"{driver}-{name}-{kind}")
    for driver, schema in (("docker", DOCKER), ("podman", PODMAN), ("go", GO_DRIVERS))
    for name, value in schema.items()
    # Nomad reads a block as a list with one map.
    for kind, form in (
        ("plain", value),
        *((("block", [value]),) if isinstance(value, dict) else ()),
        *((("one", value[0]),) if isinstance(value, list) and isinstance(value[0], dict) else ()),
    )
]


def _decoded(config: dict[str, object]) -> TaskOptions:
    """Decodes a config as a plugin does, with the bytes of the schema's encoder."""
    schema = hcl_schema.schema(options.TASK_OPTIONS)
    return options.task_options(hcl_config.encode(schema, config))


@pytest.mark.parametrize(("name", "value"), JOBS)
def test_every_option_of_other_drivers_is_taken_or_refused_with_advice(
    name: str, value: object
) -> None:
    try:
        _decoded({"image": "busybox", name: value})
    except DriverError as error:
        text = str(error)
        assert "no such option" not in text
        # A wrong value is no advice: the sample has the type of the other driver's schema.
        assert f"{name}" in text
        assert "is not supported: " in text
        assert "; " in text.partition("is not supported: ")[2]


def test_options_without_effect_come_as_warnings_with_their_paths() -> None:
    task = _decoded(
        {
            "image": "busybox",
            "isolation": "process",
            "auth": {"email": "a@b.c"},
            "mount": {"target": "/t", "source": "local/x", "volume_options": {"labels": _MAP}},
            "mounts": [{"target": "/u", "source": "local/y", "volume_options": {"no_copy": True}}],
        }
    )
    assert sorted(sentence.partition(":")[0] for sentence in task.warnings) == [
        "auth.email",
        "isolation",
        "mount[0].volume_options.labels",
        "mounts[0].volume_options.no_copy",
    ]
    assert [(mount.target, mount.source) for mount in task.mounts] == [
        ("/u", "local/y"),
        ("/t", "local/x"),
    ]


def test_values_that_mean_not_set_need_no_warning() -> None:
    nothing = {"tty": False, "ports": [], "port_map": {}, "isolation": "", "healthchecks": {}}
    assert _decoded({"image": "busybox", **nothing}) == _decoded({"image": "busybox"})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"volume_driver": "nfs"}, "volume_driver: 'nfs' is not supported, only local"),
        ({"socket": "app"}, "socket: 'app' is not supported, only default"),
        ({"auth": {"tls_verify": False}}, "hosts.toml below registry_config_path"),
        ({"cwd": "/a", "work_dir": "/b"}, "work_dir: differs from another name of the option"),
        ({"logging": {"type": "none", "driver": "journald"}}, "logging.driver: differs"),
        ({"auth": {"password": "p"}}, "auth.username: is required"),
        (
            {"mount": {"target": "/t", "volume_options": {"driver_config": {"name": "nfs"}}}},
            "driver_config.name: 'nfs' is not supported, only local",
        ),
    ],
)
def test_values_with_an_effect_that_is_missing_are_refused(
    config: dict[str, object], words: str
) -> None:
    with pytest.raises(DriverError) as refused:
        _decoded({"image": "busybox", **config})
    assert words in str(refused.value)


@pytest.mark.parametrize("name", ["cwd", "work_dir", "working_dir"])
def test_each_driver_has_a_name_of_the_working_directory(name: str) -> None:
    assert _decoded({"image": "busybox", name: "/srv", "working_dir": "/srv"}).cwd == "/srv"


def test_an_entrypoint_may_be_one_word() -> None:
    assert _decoded({"image": "busybox", "entrypoint": "a b"}).entrypoint == ("a b",)


def test_a_map_has_the_texts_that_hcl_makes_of_other_values() -> None:
    labels = {"a": True, "b": 1.5, "c": 3.0, "d": 7}
    read = _decoded({"image": "busybox", "labels": labels}).labels
    assert read == {"a": "true", "b": "1.5", "c": "3", "d": "7"}


def test_a_tmpfs_of_podman_copies_the_files_of_the_image() -> None:
    mounts = _decoded({"image": "busybox", "tmpfs": ["/a", "/b:exec,size=1m,notmpcopyup"]}).mounts
    assert [(mount.type, mount.target, mount.options) for mount in mounts] == [
        ("tmpfs", "/a", ("nosuid", "nodev", "noexec", "tmpcopyup")),
        ("tmpfs", "/b", ("exec", "size=1m", "nosuid", "nodev")),
    ]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("dns_servers", ["9.9.9.9", "dns.example"], "[1]: 'dns.example' is not an IP address"),
        ("dns_servers", ["host-gateway"], "is not an IP address"),
        ("dns_search_domains", ["a b"], "[0]: 'a b' is not a single word"),
        ("dns_options", ["a\nnameserver"], "is not a single word"),
        ("umask", "08", "is not an octal number"),
        ("cpuset_cpus", "0-", "is not a list of numbers such as 0-2,5"),
        ("cpuset_mems", "3-1", "the range 3-1 is empty"),
        ("memory_swappiness", 101, "is not between 0 and 100"),
        ("cgroupns", "task:a", "Invalid cgroupns"),
        ("device_read_bps", ["/dev/sda"], "is not such as"),
        ("device_write_bps", ["/etc/x:1M"], "is not such as"),
        ("device_read_iops", ["/dev/sda:1M"], "is not such as"),
        ("blkio_weight", 9, "is not between 10 and 1000"),
        ("blkio_weight", 1001, "is not between 0 and 1000"),
        ("storage_opt", {"dm.basesize": "1G"}, "dm.basesize: is not supported: only size"),
        ("storage_opt", {"size": "much"}, "storage_opt.size: invalid size"),
        ("platform", "linux/arm64/v8/x", "is not a platform such as linux/arm64"),
        ("platform", "../arm64", "is not a platform such as linux/arm64"),
        ("arch", "arm64/v8", "is not a word such as arm64"),
        ("annotations", {"io.containerd.runc.v2.group": "g"}, "is not an annotation of a job"),
        ("annotations", {"io.kubernetes.cri.sandbox-id": "g"}, "is not an annotation of a job"),
    ],
)
def test_values_of_moved_options_have_bounds(option: str, value: object, words: str) -> None:
    with pytest.raises(DriverError) as refused:
        _decoded({"image": "busybox", option: value})
    assert f"{option}" in str(refused.value)
    assert words in str(refused.value)
