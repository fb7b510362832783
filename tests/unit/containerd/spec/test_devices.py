"""Devices of the host, as the runtime gets the devices."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from actors.files import tree_removal
from containerd.spec import devices
from containerd.spec.devices import DeviceNode
from proto.errors import DriverError
from tests.support.waiting import wait_until

NULL = DeviceNode(path="/dev/null", kind="c", major=1, minor=3)


def test_a_device_is_as_the_host_has_it() -> None:
    (node,) = devices.host_nodes("/dev/null")
    assert (node.path, node.kind, node.major, node.minor) == ("/dev/null", "c", 1, 3)
    assert node.mode == Path("/dev/null").stat().st_mode & 0o7777
    assert node.permissions == "rwm"


def test_a_device_can_have_another_place_and_fewer_rights() -> None:
    (node,) = devices.host_nodes("/dev/null", "/dev//nothing/", "r")
    assert (node.path, node.permissions) == ("/dev/nothing", "r")


def test_a_link_leads_to_its_device(tmp_path: Path) -> None:
    link = tmp_path / "by-name"
    link.symlink_to("/dev/zero")
    (node,) = devices.host_nodes(str(link), "/dev/x")
    assert (node.path, node.major, node.minor) == ("/dev/x", 1, 5)


@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="this machine has no /dev/net/tun")
def test_a_directory_means_every_device_below_it() -> None:
    nodes = devices.host_nodes("/dev/net", "/dev/mine", "rw")
    assert {node.path for node in nodes} >= {"/dev/mine/tun"}
    assert {node.permissions for node in nodes} == {"rw"}


@pytest.mark.parametrize(
    ("host", "inside", "permissions", "text"),
    [
        ("/etc/hostname", "", "", "'/etc/hostname': not a device node"),
        ("/etc", "", "", "outside /dev: not a device node"),
        ("/", "/dev/x", "", "outside /dev"),
        ("/dev/no-such", "", "", "'/dev/no-such' cannot be used: No such file"),
        ("dev/null", "/dev/x", "", "not an absolute path of the host"),
        ("/dev/null", "/dev/../proc/x", "", "cannot be the path of a device"),
        ("/dev/null", "/proc/x", "", "cannot be the path of a device"),
        ("/dev/zero", "/dev/null", "", "'/dev/null' is made by the runtime"),
        ("/dev/null", "/dev/pts/0", "", "'/dev/pts/0' is made by the runtime"),
        ("/dev/null", "/dev/ptmx", "", "is made by the runtime"),
        ("/dev/null", "dev/x", "", "cannot be the path of a device"),
        ("/dev/null", "", "rwx", "'rwx' of '/dev/null' are not rwm"),
        ("/dev/null", "", "rr", "are not rwm"),
    ],
)
def test_what_is_no_device_is_said_with_its_path(
    host: str, inside: str, permissions: str, text: str
) -> None:
    with pytest.raises(DriverError, match=text):
        devices.host_nodes(host, inside, permissions)


def test_a_directory_without_devices_is_told_as_that() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as empty:
        Path(empty, "file").touch()
        with pytest.raises(DriverError, match="is a directory without devices: not a device node"):
            devices.host_nodes(empty, "/dev/x")


def test_the_cgroup_allows_the_tasks_devices_and_nothing_else() -> None:
    twice = DeviceNode(path="/dev/other", kind="c", major=1, minor=3)
    read = DeviceNode(path="/dev/b", kind="b", major=7, minor=0, permissions="r")
    assert devices.cgroup_rules([NULL, twice, read]) == [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        {"allow": True, "type": "b", "major": 7, "minor": 0, "access": "r"},
    ]


def test_the_last_device_at_a_place_wins() -> None:
    other = DeviceNode(path="/dev/null", kind="c", major=1, minor=5)
    assert devices.unique([NULL, other]) == (other,)


def test_a_privileged_task_gets_the_hosts_devices_but_no_terminal_of_it() -> None:
    nodes = {node.path: node for node in devices.every_host_node()}
    assert "/dev/full" in nodes
    assert "/dev/net/tun" in nodes or not Path("/dev/net/tun").exists()
    assert not {"/dev/console", "/dev/ptmx", "/dev/stdin"} & nodes.keys()
    assert not any(path.startswith(("/dev/pts", "/dev/shm")) for path in nodes)
    assert devices.oci_nodes([nodes["/dev/full"]])[0]["type"] == "c"


@pytest.mark.skipif(os.geteuid() != 0, reason="making device nodes needs root")
def test_directories_that_a_user_nested_below_dev_end_no_start(tmp_path: Path) -> None:
    """Nests directories as every user can in /dev/shm."""
    deepest = tmp_path
    for _ in range(1500):
        deepest /= "d"
        deepest.mkdir()
    (tmp_path / "e").mkdir()
    os.mknod(tmp_path / "e/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    try:
        (node,) = devices._below(str(tmp_path), "/dev/x", "rwm")
        assert (node.path, node.major, node.minor) == ("/dev/x/e/null", 1, 3)
    finally:  # pytest's own removal recurses
        tree_removal.remove(tmp_path / "d")


def test_devices_that_come_and_go_end_no_look_at_all_of_them() -> None:
    if os.geteuid() != 0:
        pytest.skip("making device nodes needs root")
    script = (
        "import os\n"
        "while True:\n"
        "    for n in range(40): os.mknod(f'/dev/driver-test-gone-{n}', 0o20600, 259)\n"
        "    for n in range(40): os.unlink(f'/dev/driver-test-gone-{n}')\n"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as churn:
        try:
            wait_until(lambda: list(Path("/dev").glob("driver-test-gone-*")), 10)
            for _ in range(300):
                assert any(node.path == "/dev/null" for node in devices.every_host_node())
        finally:
            churn.kill()
            churn.wait()
            for left in Path("/dev").glob("driver-test-gone-*"):
                left.unlink()
