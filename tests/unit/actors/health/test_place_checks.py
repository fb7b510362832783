"""Findings about a driver in another namespace than containerd."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.health import place_checks

_OURS = """\
21 1 8:1 / / rw - ext4 /dev/sda rw
22 21 0:5 / /run rw,nosuid shared:7 master:3 - tmpfs none rw
23 22 0:6 / /run/driver rw shared:9 - tmpfs none rw
24 22 0:7 / /run/private rw - tmpfs none rw
"""


@pytest.mark.parametrize(
    ("path", "theirs", "expected"),
    [
        ("/run/driver/state", "31 1 0:6 / /run/driver rw shared:9 - tmpfs none rw\n", True),
        ("/run/driver/state", "31 1 0:6 / /run rw shared:1 master:9 - tmpfs none rw\n", True),
        ("/run/driver/state", "31 1 0:6 / /run/driver rw shared:8 - tmpfs none rw\n", False),
        ("/run/drivers", "31 1 0:5 / /run rw shared:7 - tmpfs none rw\n", True),
        # The group that this process only receives from does not get its mounts.
        ("/run/drivers", "31 1 0:5 / /run rw shared:3 - tmpfs none rw\n", False),
        ("/run/private", "31 1 0:7 / /run/private rw - tmpfs none rw\n", False),
        ("/srv", "31 1 8:1 / / rw shared:1 - ext4 /dev/sda rw\n", False),
    ],
)
def test_a_mount_reaches_its_peers_and_their_slaves(path: str, theirs: str, expected: bool) -> None:
    assert place_checks.propagates(_OURS, theirs, path) is expected


def proc(directory: Path, *, mnt: str = "mnt:[2]", cgroup: str = "cgroup:[1]") -> Path:
    """Creates files of this process and of containerd, pid 7, with the same root."""
    for name, kinds in (
        ("self", {"mnt": "mnt:[1]", "cgroup": "cgroup:[1]"}),
        ("7", {"mnt": mnt, "cgroup": cgroup}),
    ):
        (directory / name / "ns").mkdir(parents=True)
        for kind, target in kinds.items():
            (directory / name / "ns" / kind).symlink_to(target)
        (directory / name / "mountinfo").write_text("1 0 8:1 / / rw shared:1 - ext4 x rw\n")
    (directory / "7/root").symlink_to("/")
    return directory


def texts(directory: Path, state_dir: str = "/run/s", snapshots: str = "") -> str:
    return "\n".join(
        f"{'fail' if fault.serious else 'warn'} {fault.text}"
        for fault in place_checks.faults(7, state_dir, snapshots, directory)
    )


def test_containerd_of_another_pid_namespace_finds_no_logs(tmp_path: Path) -> None:
    (fault,) = place_checks.faults(0, "/run/s", "", tmp_path)
    assert "containerd's process is not visible" in fault.text
    assert "--pid=host" in fault.advice


def test_a_driver_beside_containerd_has_no_fault(tmp_path: Path) -> None:
    assert texts(proc(tmp_path, mnt="mnt:[1]", cgroup="cgroup:[9]")) == ""


def test_a_containerd_that_has_just_ended_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/mnt").symlink_to("mnt:[1]")
    assert texts(tmp_path) == ""


def test_another_cgroup_namespace_and_missing_mounts_are_named(tmp_path: Path) -> None:
    made = proc(tmp_path / "proc", cgroup="cgroup:[9]")
    assert "warn the driver does not see the cgroups" in texts(made)
    other = tmp_path / "other"
    other.mkdir()
    (made / "7/root").unlink()
    (made / "7/root").symlink_to(other)
    found = texts(made, str(tmp_path / "state"), str(tmp_path))
    assert f"fail mounts below {tmp_path / 'state'} do not reach containerd" in found
    assert "warn mounts below /run/netns do not reach containerd" in found
    assert f"fail {tmp_path} is not that of containerd: the driver needs the files of" in found


def test_a_shared_state_directory_without_propagation_is_a_fault(tmp_path: Path) -> None:
    made = proc(tmp_path / "proc")
    assert "state" not in texts(made, str(tmp_path / "state"))
    (made / "self/mountinfo").write_text("1 0 8:1 / / rw - ext4 x rw\n")
    assert f"fail mounts below {tmp_path / 'state'} do not" in texts(made, str(tmp_path / "state"))
