"""passwd and group of a hostile image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from containerd.api.records import Mount
from containerd.spec.users import Accounts, lookup, read_accounts
from proto.errors import Code, DriverError
from tests.support.kernel.device_nodes import tripwire

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
@pytest.mark.parametrize("name", ["passwd", "group"])
def test_what_is_no_file_is_refused_and_no_descriptor_is_left(rootfs: Path, name: str) -> None:
    path = rootfs / "etc" / name
    before = len(list(Path("/proc/self/fd").iterdir()))
    for make in (Path.mkdir, os.mkfifo):
        make(path)
        with pytest.raises(
            DriverError, match=f"the image's /etc/{name} is not a regular file"
        ) as caught:
            read(rootfs)
        assert caught.value.code is Code.INVALID
        path.rmdir() if path.is_dir() else path.unlink()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_device_of_an_image_is_looked_at_and_not_opened(rootfs: Path) -> None:
    """Puts a device in the place of passwd: an open of /dev/watchdog restarts the host."""
    tripwire(rootfs / "etc" / "passwd")
    with pytest.raises(DriverError, match="the image's /etc/passwd is not a regular file"):
        read(rootfs)


def test_a_file_that_is_too_long_ends_with_a_whole_line(rootfs: Path) -> None:
    """Cuts at a line's end, because half a number names another user or group."""
    line, limit = "x:x:1:1::/:/\n", 1024 * 1024
    lines = line * (limit // len(line))
    last = f"{'b' * (limit - len(lines) - 4)}:x:1000:\n"
    (rootfs / "etc" / "group").write_text(lines + last)
    found = read(rootfs)
    assert found == Accounts("", lines, ("/etc/group",))
    with pytest.raises(DriverError, match="no group 'eve' in the first 1 MiB of /etc/group"):
        lookup("0:eve", found)
