"""The check of a created task's mounts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from containerd.spec import final_mounts
from containerd.spec.final_mounts import Mounted

OWN = {
    "/proc": "proc",
    "/dev": "tmpfs",
    "/dev/pts": "devpts",
    "/dev/shm": "tmpfs",
    "/dev/mqueue": "mqueue",
    "/sys": "sysfs",
    "/sys/fs/cgroup": "cgroup",
}


def spec(extra: Mapping[str, str] | None = None, **more: Any) -> dict[str, Any]:
    points = [*OWN.items(), ("/local", "bind"), *(extra or {}).items()]
    return {
        "mounts": [{"destination": target, "type": kind} for target, kind in points],
        "linux": {"maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]},
        **more,
    }


def mounted(*extra: str, without: str = "") -> list[Mounted]:
    targets = [("/", "overlay"), *OWN.items(), ("/local", "ext4"), ("/proc/kcore", "tmpfs")]
    targets += [("/proc/sys", "proc"), ("/sys/fs/cgroup/cpu", "cgroup")]
    targets += [(target, "ext4") for target in extra]
    return [Mounted(target=target, kind=kind) for target, kind in targets if target != without]


def node_of(name: str) -> int:
    return os.makedev(*final_mounts.NODES[name])


def verdict(
    document: dict[str, Any],
    points: list[Mounted],
    node: Callable[[str], int | None] = node_of,
) -> str:
    difference = final_mounts.first_difference(document, points, node)
    return f"{difference.target}: {difference.reason}" if difference else ""


def test_what_was_asked_for_is_right() -> None:
    assert verdict(spec(), mounted()) == ""
    shm = spec({"/dev/shm": "bind", "/dev/disk": "bind"})
    assert verdict(shm, mounted("/dev/shm", "/dev/disk", "/dev/disk/below")) == ""


@pytest.mark.parametrize("place", ["/x", "/dev", "/dev/null", "/dev/pts", "/sys/fs/cgroup"])
def test_each_mount_of_the_spec_is_at_its_own_target(place: str) -> None:
    points = mounted(place, without="/local")
    assert verdict(spec(), points) == "/local: the mount went to another path"


@pytest.mark.parametrize("place", ["/", "/dev", "/proc", "/sys"])
def test_each_place_of_the_kernels_has_one_mount(place: str) -> None:
    assert verdict(spec(), mounted(place)) == f"{place}: 2 mounts instead of one"
    without = [point for point in mounted() if point.target != place]
    assert verdict(spec(), without) in {
        f"{place}: 0 mounts instead of one",
        f"{place}: the mount went to another path",
    }


def test_a_place_of_the_kernels_has_the_specs_file_system() -> None:
    points = [*mounted(without="/dev"), Mounted(target="/dev", kind="ext4")]
    assert verdict(spec(), points) == "/dev: the file system is ext4 instead of tmpfs"


@pytest.mark.parametrize(
    "place", ["/dev/x", "/dev/shm/x", "/dev/pts", "/proc/x", "/sys/x", "/proc/kcore"]
)
def test_no_mount_is_where_nobody_has_asked_for_it(place: str) -> None:
    assert verdict(spec(), mounted(place)) == f"{place}: the spec has no mount at this path"
    hooks = spec(hooks={"createRuntime": [{"path": "/bin/true"}]})
    assert verdict(hooks, mounted(place)) == ""
    assert final_mounts.first_difference(spec(), mounted(place), node_of, more=True) is None


def test_a_terminal_is_mounted_at_the_console_and_at_no_other_place() -> None:
    terminal = spec(process={"terminal": True})
    assert verdict(terminal, mounted("/dev/console")) == ""
    assert verdict(spec(process={}), mounted("/dev/console")).startswith("/dev/console: ")
    for place in ("/proc/sysrq-trigger", "/dev/pts/0"):
        assert verdict(terminal, mounted(place)) == f"{place}: the spec has no mount at this path"


def test_each_node_is_the_device_of_its_name() -> None:
    def swapped(name: str) -> int:
        return node_of("zero" if name == "full" else name)

    assert (
        verdict(spec(), mounted(), node=swapped)
        == "/dev/full: the file is not the device of that name"
    )
    assert verdict(spec(), mounted(), node=lambda _: None).startswith("/dev/null")
    assert verdict(spec({"/dev": "bind"}), mounted(), node=lambda _: None) == ""
    given = spec()
    major, minor = final_mounts.NODES["zero"]
    given["linux"]["devices"] = [{"path": "/dev/full", "major": major, "minor": minor}]
    assert verdict(given, mounted(), node=swapped) == ""


def test_the_kernels_list_is_read_with_blanks_and_optional_fields() -> None:
    text = (
        "22 27 0:21 / /a\\040b\\134c rw,relatime shared:1 master:2 - tmpfs my\\040source rw\n"
        "23 27 0:22 /sub / rw - ext4 /dev/sda ro\n"
    )
    assert final_mounts.parse(text) == [
        Mounted(target="/a b\\c", kind="tmpfs"),
        Mounted(target="/", kind="ext4"),
    ]


def test_a_name_may_have_any_character_but_the_end_of_a_line() -> None:
    odd = "/a\r\x0b\x1c\x85\u2028b"
    text = f"23 1 0:5 / {odd}\\040c rw,nosuid shared:1 - ext4 /dev/vda rw\n"
    text += "24 1 0:6 / / rw - tmpfs t rw\n"
    assert final_mounts.parse(text) == [
        Mounted(target=f"{odd} c", kind="ext4"),
        Mounted(target="/", kind="tmpfs"),
    ]
