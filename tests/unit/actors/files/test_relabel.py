"""SELinux contexts of files: the attribute itself, which root may set on any kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actors.files import relabel
from containerd import syscalls

CONTEXT = "system_u:object_r:container_file_t:s0:c1,c2"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root alone sets the attribute")


def context(path: Path) -> str:
    """Returns the attribute of a file or a link itself; empty for none."""
    try:
        return os.getxattr(path, relabel.ATTRIBUTE, follow_symlinks=False).decode()
    except OSError:
        return ""


def relabelled(path: Path) -> None:
    descriptor = os.open(path, os.O_PATH)
    try:
        relabel.relabel(descriptor, CONTEXT)
    finally:
        os.close(descriptor)


def test_a_tree_gets_the_context_and_a_link_leads_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "below").mkdir(parents=True)
    top = tmp_path / "top"
    (top / "a/b").mkdir(parents=True)
    (top / "a/file").touch()
    os.mkfifo(top / "a/fifo")
    (top / "a/link").symlink_to(outside)
    relabelled(top)
    below = sorted(top.rglob("*"))
    assert [context(path) for path in (top, *below)] == [CONTEXT] * 6
    assert [context(outside), context(outside / "below"), context(tmp_path)] == ["", "", ""]


def test_a_file_gets_the_context(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    relabelled(file)
    assert (context(file), context(tmp_path)) == (CONTEXT, "")


def test_a_file_that_has_the_context_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    os.setxattr(file, relabel.ATTRIBUTE, CONTEXT.encode() + b"\0")
    before = file.stat().st_ctime_ns
    relabelled(tmp_path)
    assert file.stat().st_ctime_ns == before
    assert context(tmp_path) == CONTEXT


def test_another_file_system_below_keeps_its_contexts(tmp_path: Path) -> None:
    place = tmp_path / "top/mounted"
    place.mkdir(parents=True)
    syscalls.mount("tmpfs", str(place), "tmpfs", 0, "size=64k")
    try:
        (place / "file").touch()
        relabelled(tmp_path / "top")
        assert (context(place), context(place / "file")) == ("", "")
    finally:
        syscalls.unmount(str(place))
    assert context(tmp_path / "top") == CONTEXT


def test_very_deep_directories_keep_their_contexts(tmp_path: Path) -> None:
    deepest = tmp_path.joinpath(*["d"] * 200)
    deepest.mkdir(parents=True)
    relabelled(tmp_path)
    assert context(tmp_path / "d/d/d") == CONTEXT
    assert context(deepest) == ""


@pytest.mark.parametrize("path", ["/", "/etc", "/home", "/usr", "/usr/share/x", "/dev/shm", "/var"])
def test_the_hosts_own_directories_are_kept(path: str) -> None:
    assert relabel.is_kept(path)


@pytest.mark.parametrize("path", ["/srv/data", "/home/data", "/usrlocal", "/var/lib/nomad/x"])
def test_directories_for_data_are_not_kept(path: str) -> None:
    assert not relabel.is_kept(path)
