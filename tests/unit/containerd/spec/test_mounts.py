"""Mounts of a job, as the runtime gets the mounts."""

from __future__ import annotations

import posixpath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerd.spec import mounts
from containerd.spec.mounts import MountOption, MountPoint
from proto.errors import DriverError

PARTS = st.lists(st.sampled_from(["a", "b", "local", "dev", "proc", "sys", "pts", ".", "..", ""]))


def job_mount(*, privileged: bool = False, **fields: Any) -> MountPoint:
    return mounts.job_mount(MountOption(**fields), privileged=privileged)


@given(parts=PARTS)
def test_a_target_is_clean_and_never_the_containers_own(parts: list[str]) -> None:
    try:
        clean = mounts.clean_target("/" + "/".join(parts), "mounts")
    except DriverError:
        return
    assert clean == posixpath.normpath(clean)
    assert ".." not in parts
    names = clean.split("/")[1:]
    assert names[0] not in {"", "proc", "sys"}
    assert names != ["dev"]
    assert names[:2] != ["dev", "pts"]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("relative", "not an absolute path"),
        ("", "not an absolute path"),
        ("/a\nb", "not an absolute path"),
        ("/a\0b", "not an absolute path"),
        ("/a/../../b", "'..'"),
        ("/", "container's own"),
        ("//", "container's own"),
        ("/proc", "container's own"),
        ("/proc/sys/kernel", "container's own"),
        ("/./sys/../sys", "'..'"),
        ("//sys/fs", "container's own"),
        ("/dev/", "container's own"),
        ("/dev/pts/0", "container's own"),
    ],
)
def test_targets_that_would_break_the_container_are_refused(target: str, text: str) -> None:
    with pytest.raises(DriverError, match=text):
        job_mount(type="bind", source="/s", target=target, options=("rbind", "ro"))


@pytest.mark.parametrize("target", ["/dev/shm", "/dev/fuse", "/process", "/system/x", "/etc/hosts"])
def test_other_targets_are_the_jobs_choice(target: str) -> None:
    assert mounts.clean_target(target, "mounts") == target


@pytest.mark.parametrize("kind", ["ext4", "overlay", "proc", "cgroup", "sysfs", "nfs", ""])
def test_only_binds_and_tmpfs_are_mounted(kind: str) -> None:
    with pytest.raises(DriverError, match="is not one of bind, volume, tmpfs"):
        job_mount(type=kind, source="/dev/sda1", target="/x", options=("rw",))


@pytest.mark.parametrize(
    "option",
    ["remount", "lowerdir=/", "idmap", "mode=777", "ro,rw", "tmpcopyup", "RO", "", "rro"],
)
def test_a_bind_takes_no_option_that_is_not_listed(option: str) -> None:
    with pytest.raises(DriverError, match="is no option of a bind"):
        job_mount(type="bind", source="/s", target="/x", options=("rbind", option))


@pytest.mark.parametrize(
    "option", ["rbind", "bind", "rshared", "size=", "size=0", "size=1;x", "mode=9", "lowerdir=/"]
)
def test_a_tmpfs_takes_no_option_that_is_not_listed(option: str) -> None:
    with pytest.raises(DriverError, match=r"is no (option|size|mode) of a tmpfs"):
        job_mount(type="tmpfs", source="", target="/x", options=(option,))


def test_a_bind_is_recursive_and_private_unless_the_job_says_otherwise() -> None:
    plain = job_mount(type="volume", source="/s", target="/x", options=("ro",))
    assert plain == MountPoint(source="/s", target="/x", options=("rbind", "ro", "rprivate"))
    chosen = job_mount(
        type="bind", source="/s", target="/x", options=("bind", "rslave", "nodev", "Z")
    )
    assert chosen.options == ("bind", "rslave", "nodev")


def test_dockers_fields_become_options() -> None:
    read = job_mount(type="bind", source="/s", target="/x/", readonly=True, propagation="rslave")
    assert read == MountPoint(source="/s", target="/x", options=("rbind", "ro", "rslave"))
    assert read.readonly
    memory = job_mount(
        type="tmpfs", source="", target="/x", tmpfs_size_bytes=4096, tmpfs_mode=0o700
    )
    assert memory.type == "tmpfs"
    assert memory.options[-2:] == ("size=4096", "mode=700")
    assert {"nosuid", "nodev", "noexec"} <= set(memory.options)


@pytest.mark.parametrize(
    ("word", "option"),
    [
        ("", "rprivate"),
        ("private", "rprivate"),
        ("host-to-task", "rslave"),
        ("bidirectional", "rshared"),
    ],
)
def test_a_volume_mount_has_nomads_propagation(word: str, option: str) -> None:
    point = mounts.volume_mount("/s", "/x", readonly=True, propagation=word)
    assert point.options == ("rbind", option, "ro")


def test_an_unknown_propagation_is_an_error() -> None:
    with pytest.raises(DriverError, match="none of private, host-to-task and bidirectional"):
        mounts.volume_mount("/s", "/x", readonly=False, propagation="both")
    with pytest.raises(DriverError, match="propagation 'both' of /x is unknown"):
        job_mount(type="bind", source="/s", target="/x", propagation="both")


def test_a_bind_without_a_source_is_an_error() -> None:
    with pytest.raises(DriverError, match="/x has no source"):
        job_mount(type="volume", source="", target="/x", options=("rbind", "ro"))


def test_the_last_word_says_whether_a_mount_is_read_only() -> None:
    assert not MountPoint(target="/x", options=("ro", "rw")).readonly
    assert MountPoint(target="/x", options=("rw", "ro")).readonly
    assert not MountPoint(target="/x").readonly


@given(
    targets=st.lists(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(lambda p: "/" + "/".join(p))
    )
)
def test_no_mount_hides_one_that_was_made_before(targets: list[str]) -> None:
    points = [MountPoint(target=target, source=str(n)) for n, target in enumerate(targets)]
    ordered = mounts.by_depth(points)
    assert sorted(ordered, key=str) == sorted(points, key=str)
    for place, later in enumerate(ordered):
        for earlier in ordered[:place]:
            assert not earlier.target.startswith(f"{later.target}/")
            if earlier.target == later.target:
                assert int(earlier.source) < int(later.source)


@pytest.mark.parametrize(
    ("options", "expected"),
    [((), ""), (("rprivate",), ""), (("rslave",), "rslave"), (("rslave", "rshared"), "shared")],
)
def test_the_root_lets_through_what_a_mount_needs(options: tuple[str, ...], expected: str) -> None:
    points = [MountPoint(target="/x", options=(option,)) for option in options]
    assert mounts.rootfs_propagation(points) == expected


def test_shared_memory_has_its_size_and_is_never_without_a_limit() -> None:
    def size(wanted: int) -> str:
        found = mounts.kernel_file_systems(shm_size_bytes=wanted)
        shm = next(mount for mount in found if mount["destination"] == "/dev/shm")
        return str(shm["options"][-1])

    assert size(0) == "size=65536k"
    assert size(1) == "size=1k"
    assert size(512) == "size=1k"
    assert size(128 * 1024 * 1024) == "size=131072k"


@pytest.mark.parametrize(
    ("target", "source", "readonly", "privileged", "fine"),
    [
        ("/sys", "/sys", True, False, True),
        ("/sys/fs/cgroup", "/sys/fs/cgroup", True, False, True),
        ("/sys", "//sys/", True, False, True),
        ("/sys", "/sys", False, False, False),
        ("/sys", "/sysx", True, False, False),
        ("/sys", "/sys/../etc", True, False, False),
        ("/dev", "/dev", True, False, False),
        ("/dev/disk", "/dev/disk", True, False, True),
        ("/dev/random", "/dev/urandom", True, False, False),
        ("/dev", "/dev", False, True, True),
        ("/dev/pts", "/x", False, True, True),
        ("/sys", "/x", False, True, True),
        ("/proc", "/proc", True, True, False),
        ("/", "/x", True, True, False),
    ],
)
def test_how_far_a_mount_of_a_job_reaches(
    target: str, source: str, *, readonly: bool, privileged: bool, fine: bool
) -> None:
    def make() -> MountPoint:
        return job_mount(
            type="bind", source=source, target=target, readonly=readonly, privileged=privileged
        )

    if fine:
        assert make().target == target
    else:
        with pytest.raises(DriverError, match="container's own"):
            make()


@pytest.mark.parametrize(
    ("target", "source", "privileged", "fine"),
    [
        ("/dev", "/dev", False, True),
        ("/dev", "/dev/", False, True),
        ("/dev", "/srv/volume", False, False),
        ("/dev", "/srv/volume", True, True),
        ("/dev/null", "/srv/volume", False, False),
        ("/sys", "/srv/volume", False, True),
        ("/proc/x", "/srv/volume", True, False),
    ],
)
def test_how_far_a_mount_of_nomads_reaches(
    target: str, source: str, *, privileged: bool, fine: bool
) -> None:
    def make() -> MountPoint:
        return mounts.volume_mount(
            source, target, readonly=False, propagation="", privileged=privileged
        )

    if fine:
        assert make().target == target
    else:
        with pytest.raises(DriverError, match="container's own"):
            make()


def test_a_read_only_tree_is_a_recursive_bind() -> None:
    tree = MountPoint(target="/a", options=("rbind", "rprivate", "ro"))
    assert mounts.is_readonly_tree(tree)
    assert mounts.wholly_readonly(tree).options == ("rbind", "rprivate", "ro", "rro")
    for other in (
        MountPoint(target="/b", options=("bind", "ro")),
        MountPoint(target="/c", options=("rbind", "ro", "rw")),
        MountPoint(target="/d", type="tmpfs", options=("ro",)),
    ):
        assert not mounts.is_readonly_tree(other)
