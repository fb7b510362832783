"""passwd and group of an image that was made to be read wrongly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from containerd.records import Mount
from containerd.rootfs_users import Accounts, read_accounts
from tests.support.device_nodes import tripwire

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def read(rootfs: Path) -> Accounts:
    return read_accounts((Mount(type="bind", source=str(rootfs), options=("rbind", "ro")),))


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path


def test_links_of_an_image_stay_in_the_image(rootfs: Path, tmp_path: Path) -> None:
    (rootfs / "etc" / "real").write_text("ours")
    (rootfs / "etc" / "passwd").symlink_to("/etc/real")
    (rootfs / "etc" / "group").symlink_to("../../../../proc/self/status")
    assert read(rootfs) == Accounts("ours", "")


@pytest.mark.timeout(20)
def test_what_is_no_file_counts_as_none_and_no_descriptor_is_left(rootfs: Path) -> None:
    (rootfs / "etc" / "passwd").mkdir()
    os.mkfifo(rootfs / "etc" / "group")
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert read(rootfs) == Accounts("", "")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_device_of_an_image_is_looked_at_and_not_opened(rootfs: Path) -> None:
    """To open /dev/watchdog restarts the host; an image may have that device as its passwd."""
    tripwire(rootfs / "etc" / "passwd")
    tripwire(rootfs / "etc" / "group")
    assert read(rootfs) == Accounts("", "")
