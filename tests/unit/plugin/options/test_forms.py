"""Values with a form of their own: accepted texts, and the errors for other texts."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.model.settings import DeviceOption, MountOption, TaskOptions
from plugin import options
from proto.errors import Code, DriverError


def _task(**values: Any) -> TaskOptions:
    return options.task_options(msgpack.packb({"image": "busybox", **values}))


def _refused(**values: Any) -> str:
    with pytest.raises(DriverError) as refused:
        _task(**values)
    assert refused.value.code is Code.INVALID
    return str(refused.value)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("128M", 128 << 20),
        ("128MB", 128 << 20),
        ("128mib", 128 << 20),
        ("1.5g", 3 << 29),
        ("65536", 65536),
        (65536, 65536),
        ("4 k", 4096),
        ("", 0),
    ],
)
def test_sizes_are_read_as_docker_reads_them(written: Any, size: int) -> None:
    assert _task(shm_size=written).shm_size_bytes == size


@pytest.mark.parametrize("written", ["512", "-1", "64 Q", "1e9", "0", "99999T", True, "M", "1kk"])
def test_sizes_that_tmpfs_would_misread_are_refused(written: Any) -> None:
    assert "shm_size: Error in setting shm_size: " in _refused(shm_size=written)


@pytest.mark.parametrize("given", [{"nofile": "1024:65536"}, [{"nofile": "1024:65536"}]])
def test_ulimits_have_a_soft_and_a_hard_side(given: Any) -> None:
    assert _task(ulimit=given).ulimits == {"nofile": (1024, 65536)}


def test_one_ulimit_is_both_sides_and_unlimited_is_the_kernels_infinity() -> None:
    infinity = (1 << 64) - 1
    assert _task(ulimit=[{"NPROC": "512"}, {"RLIMIT_core": "unlimited"}]).ulimits == {
        "nproc": (512, 512),
        "core": (infinity, infinity),
    }


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"files": "1"}, "ulimit.files: no such limit, known: as, core"),
        ({"nofile": "many"}, "ulimit.nofile: 'many' is not a number"),
        ({"nofile": "2:1"}, "the soft limit 2 is above the hard limit 1"),
        ({"nofile": "1:2:3"}, "is not a number"),
        ("nofile=1", "is not a map of strings"),
    ],
)
def test_wrong_ulimits_are_named(limit: Any, words: str) -> None:
    assert words in _refused(ulimit=limit)


def test_sysctls_of_the_tasks_own_namespaces_are_taken() -> None:
    given = {"net.core.somaxconn": "16384", "kernel.shmmax": "1", "net/ipv4/ip_forward": "1"}
    assert _task(sysctl=[given]).sysctl == {
        "net.core.somaxconn": "16384",
        "kernel.shmmax": "1",
        "net.ipv4.ip_forward": "1",
    }


@pytest.mark.parametrize(
    ("sysctl", "words"),
    [
        ({"kernel.core_pattern": "|/x"}, "kernel.core_pattern belongs to the whole host"),
        ({"vm.swappiness": "1"}, "vm.swappiness belongs to the whole host"),
        ({"net.../x": "1"}, "is not a kernel parameter's name"),
        ({"net.core.somaxconn": "1\n2"}, "has more than one line"),
        ({"": "1"}, "is not a kernel parameter's name"),
    ],
)
def test_sysctls_of_the_host_are_refused(sysctl: Any, words: str) -> None:
    assert words in _refused(sysctl=sysctl)


def test_labels_of_the_driver_are_not_a_jobs_to_set() -> None:
    assert _task(labels=[{"team": "a"}]).labels == {"team": "a"}
    # containerd's restart monitor runs the program of a label `restart.loguri` as root.
    reserved = ("containerd.io/gc.root", "containerd.io/restart.loguri")
    for name in ("nomad-driver-containerd.io/task-id", *reserved, ""):
        assert "is not a label that a job may set" in _refused(labels={name: "x"})
    assert "longer than 4096 bytes" in _refused(labels={"a": "x" * 4096})


def test_devices_are_read_in_all_of_dockers_forms() -> None:
    options_ = _task(
        devices=[
            "/dev/loop0",
            "/dev/a:/dev/b",
            "/dev/a:/dev/b:r",
            "/dev/a:rw",
            {"host_path": "/dev/c", "container_path": "/dev/d", "cgroup_permissions": "rw"},
            {"host_path": "/dev/e", "container_path": None},
            "vendor.com/gpu=all",
        ]
    )
    assert [
        (device.host_path, device.container_path, device.cgroup_permissions)
        for device in options_.devices
    ] == [
        ("/dev/loop0", "/dev/loop0", "rwm"),
        ("/dev/a", "/dev/b", "rwm"),
        ("/dev/a", "/dev/b", "r"),
        ("/dev/a", "/dev/a", "rw"),
        ("/dev/c", "/dev/d", "rw"),
        ("/dev/e", "/dev/e", "rwm"),
    ]
    assert options_.cdi_devices == ("vendor.com/gpu=all",)


def test_one_device_block_needs_no_list() -> None:
    assert _task(devices={"host_path": "/dev/a"}).devices == (
        DeviceOption(host_path="/dev/a", container_path="/dev/a"),
    )


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("loop0", "is not an absolute path"),
        ("/dev/../etc/shadow", "is not an absolute path without .."),
        ("/dev/a:/dev/b:rx", "permissions 'rx' are not some of rwm"),
        ("/dev/a:/b:r:w", "is not host:container:permissions"),
        ({"path": "/dev/a"}, "devices[0].path: no such option"),
        ({"host_path": 3}, "are strings"),
        ({}, "is not an absolute path"),
        (7, "7 is not a device"),
    ],
)
def test_wrong_devices_are_named(device: Any, words: str) -> None:
    assert words in _refused(devices=[device])


def test_mounts_are_read_in_all_three_forms_in_this_order() -> None:
    assert _task(
        mounts=[{"type": "bind", "target": "/t", "source": "/s", "options": ["rbind", "ro"]}],
        mount=[
            {
                "type": "bind",
                "target": "/u",
                "source": "local/u",
                "readonly": True,
                "bind_options": {"propagation": "rslave"},
            },
            {
                "type": "tmpfs",
                "target": "/v",
                "tmpfs_options": [{"size": 65536, "mode": 0o700}],
            },
        ],
        volumes=["/a:/b", "local/c:/d:ro,rshared"],
    ).mounts == (
        MountOption(type="bind", target="/t", source="/s", options=("rbind", "ro")),
        MountOption(
            type="bind", target="/u", source="local/u", readonly=True, propagation="rslave"
        ),
        MountOption(type="tmpfs", target="/v", tmpfs_size_bytes=65536, tmpfs_mode=0o700),
        MountOption(type="bind", source="/a", target="/b"),
        MountOption(type="bind", source="local/c", target="/d", options=("ro", "rshared")),
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"mounts": [{"type": "bind", "target": "/t", "source": "/s", "options": []}]},
            (
                "Options cannot be empty for mount type: bind."
                " You need to atleast pass rbind and ro."
            ),
        ),
        ({"mounts": [{"type": "ext4", "target": "/t"}]}, "not one of volume, bind, tmpfs"),
        ({"mounts": [{"type": "tmpfs"}]}, "mounts[0].target: is required"),
        ({"mounts": [{"taget": "/x"}]}, 'did you mean "target"'),
        ({"mount": ["/a"]}, "is not a block"),
        ({"mount": 7}, "is not a list of blocks"),
        ({"volumes": ["/a"]}, "is not source:target or source:target:options"),
        ({"volumes": ["/a:/b:ro:z"]}, "is not source:target or source:target:options"),
        (
            {"mount": [{"target": "/x", "bind_options": {"propagation": "up"}}]},
            "bind_options.propagation: 'up' is not one of private",
        ),
    ],
)
def test_wrong_mounts_are_named(values: Any, words: str) -> None:
    assert words in _refused(**values)


def test_modes_are_host_or_nothing() -> None:
    assert _task(pid_mode="Host").pid_mode == "host"
    assert _task(ipc_mode="private").ipc_mode == ""
    words = "Invalid pid_mode. Set pid_mode=host to enable host pid namespace."
    assert words in _refused(pid_mode="container:x")
    both = _refused(pid_mode="container:x", ipc_mode="container:x")
    assert "another task of the group. ipc_mode: Invalid ipc_mode. Set" in both


def test_policies_signals_and_numbers_are_checked() -> None:
    assert "not one of always, missing, never" in _refused(image_pull_policy="sometimes")
    assert "Invalid signal: SIGFOO" in _refused(stop_signal="SIGFOO")
    assert "not between 0 and 1000" in _refused(oom_score_adj=-5)
    assert "is not a whole number" in _refused(pids_limit=1.5)
    assert _task(pids_limit=100.0).pids_limit == 100


def test_the_operators_auth_may_be_a_file_a_helper_or_a_user() -> None:
    read = options.driver_settings(
        msgpack.packb({"auth": {"config": "/etc/docker.json", "helper": "ecr-login"}})
    )
    assert (read.auth, read.auth_config, read.auth_helper) == (
        None,
        "/etc/docker.json",
        "ecr-login",
    )
    for auth, words in (
        ({"username": "u"}, "auth: username and password must both be set"),
        ({"helper": "../x"}, "is not a file name"),
    ):
        with pytest.raises(DriverError, match=words):
            options.driver_settings(msgpack.packb({"auth": auth}))


def test_the_gc_block_sets_both_of_its_settings() -> None:
    read = options.driver_settings(msgpack.packb({"gc": {"image": False, "image_delay": "3m"}}))
    assert (read.image_gc, read.image_gc_delay_s) == (False, 180.0)


def test_the_log_buffer_has_a_size_that_a_pipe_can_have_and_one_of_two_ends() -> None:
    def read(**block: object) -> tuple[int, bool]:
        settings = options.driver_settings(msgpack.packb({"log_buffer": block}))
        return settings.log_buffer_bytes, settings.log_drops

    assert read() == (16 << 20, True)
    assert read(size="1MiB", when_full="block") == (1 << 20, False)
    assert read(size="1G", when_full="drop_oldest") == (1 << 30, True)
    assert read(size="64k", when_full="") == (64 << 10, True)
    for block, words in (
        ({"size": "63K"}, "log_buffer.size: '63K' is not between 64K and 1G"),
        ({"size": "2G"}, "is not between 64K and 1G"),
        ({"size": ""}, "is not between 64K and 1G"),
        ({"size": "much"}, "invalid size"),
        ({"when_full": "drop"}, "log_buffer.when_full: 'drop' is not one of drop_oldest, block"),
        ({"mode": "non-blocking"}, "log_buffer.mode: no such option"),
    ):
        with pytest.raises(DriverError, match=words):
            read(**block)


def test_the_block_of_dangling_containers_is_read_with_its_defaults() -> None:
    block = {"period": "1m", "creation_grace": "10m", "dry_run": True}
    read = options.driver_settings(msgpack.packb({"gc": {"dangling_containers": block}}))
    assert (read.gc_dangling, read.gc_dangling_dry_run) == (True, True)
    assert (read.gc_dangling_period_s, read.gc_dangling_grace_s) == (60.0, 600.0)
    assert read.image_gc
    for wrong, words in (
        ({"period": "0s"}, 'gc.dangling_containers.period: "0s" is less than 0.1s'),
        ({"creation_grace": "0s"}, 'gc.dangling_containers.creation_grace: "0s" is less than 0.1s'),
        ({"dryrun": True}, 'gc.dangling_containers.dryrun: no such option, did you mean "dry_run"'),
    ):
        with pytest.raises(DriverError, match=re.escape(words)):
            options.driver_settings(msgpack.packb({"gc": {"dangling_containers": wrong}}))


def test_there_may_be_as_many_extra_hosts_and_words_as_a_job_has() -> None:
    hosts = [f"h{number}:10.0.0.1" for number in range(5000)]
    assert len(_task(extra_hosts=hosts).extra_hosts) == 5000
    assert len(_task(args=["x"] * 5000).args) == 5000
    assert len(_task(entrypoint=["x"] * 5000).entrypoint or ()) == 5000


def test_extra_hosts_are_names_with_addresses() -> None:
    read = _task(extra_hosts=["db:10.0.0.1", "six:::1", "box:[fd00::1]", "h.x_y-z:host-gateway"])
    assert read.extra_hosts == (
        ("db", "10.0.0.1"),
        ("six", "::1"),
        ("box", "fd00::1"),
        ("h.x_y-z", "host-gateway"),
    )


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("db", 'bad format for add-host: "db"'),
        ("x\n* * * * * root sh:1.2.3.4", "bad format for add-host: "),
        ("a b:1.2.3.4", 'bad format for add-host: "a b:1.2.3.4"'),
        (":1.2.3.4", "bad format for add-host"),
        ("db:1.2.3", 'invalid IP address in add-host: "1.2.3"'),
        ("db:", 'invalid IP address in add-host: ""'),
        ("db:fe80::1%eth0", "invalid IP address in add-host"),
        ("db:1.2.3.4\n", "invalid IP address in add-host"),
    ],
)
def test_other_lines_do_not_get_into_hosts(written: str, words: str) -> None:
    assert words in _refused(extra_hosts=[written])


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from([option.name for option in options.TASK_OPTIONS]), _VALUES)
def test_no_value_of_any_option_does_more_than_be_refused(name: str, value: Any) -> None:
    with contextlib.suppress(DriverError):
        assert isinstance(
            _task(**({"image": value} if name == "image" else {name: value})), TaskOptions
        )
