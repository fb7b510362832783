"""Removal of a tree in which a task has put obstacles to other removals."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.files import tree_removal

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and flags of files need root")


def nested(directory: Path, depth: int, name: bytes = b"d") -> None:
    """Makes directories in each other, deeper than any path may be long."""
    where = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=where)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=where)
        os.close(where)
        where = below
    os.close(os.open("leaf", os.O_WRONLY | os.O_CREAT, dir_fd=where))
    os.close(where)


@contextmanager
def few_descriptors(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    return made


def test_a_tree_deeper_than_recursion_and_descriptors_go_is_removed(tree: Path) -> None:
    nested(tree, 5_000, b"d" * 200)
    opened = len(list(Path("/proc/self/fd").iterdir()))
    with few_descriptors(opened + 32):
        assert tree_removal.remove(tree) == ""
    assert not tree.exists()


def test_what_is_gone_is_no_failure(tree: Path) -> None:
    assert tree_removal.remove(tree / "nothing" / "here") == ""


def test_names_of_any_bytes_are_removed(tree: Path) -> None:
    for name in (b"\xff\xfe", b"new\nline", b"\x1b[2J", b"-rf", b"\xe2\x80\xae", b"x" * 255):
        (tree / os.fsdecode(name)).mkdir()
        (tree / os.fsdecode(name) / "file").touch()
    nested(tree, 3, b"\xff" * 255)
    assert tree_removal.remove(tree) == ""
    assert not tree.exists()


def test_links_are_removed_and_not_followed(tree: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / "below").mkdir(parents=True)
    (tree / "out").symlink_to(precious)
    (tree / "d").mkdir()
    (tree / "d/up").symlink_to("../..")
    (tree / "d/loop").symlink_to("loop")
    os.mkfifo(tree / "d/fifo")
    os.link(tree / "d/fifo", tree / "d/again")
    assert tree_removal.remove(tree) == ""
    assert (precious / "below").is_dir()


def test_a_link_in_the_place_of_the_tree_stays_with_its_reason(tree: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tree)
    (tree / "file").touch()
    assert str(link) in tree_removal.remove(link)
    assert (tree / "file").exists()


def test_a_wide_and_bushy_tree_is_removed(tree: Path) -> None:
    for first in range(30):
        for second in range(20):
            (tree / f"{first}/{second}/x").mkdir(parents=True)
            (tree / f"{first}/{second}/file").touch()
    assert tree_removal.remove(tree) == ""
    assert not tree.exists()


@as_root
def test_immutable_and_append_only_things_are_removed(tree: Path) -> None:
    (tree / "i/j").mkdir(parents=True)
    (tree / "a/deep/er").mkdir(parents=True)
    for path, flag in (("i/f", "+i"), ("i/j/f", "+ai"), ("a/f", "+a"), ("a/deep/f", "+i")):
        (tree / path).touch()
        if subprocess.run(["chattr", flag, str(tree / path)], check=False).returncode:
            pytest.skip("this file system has no flags")
    for path, flag in (("i/j", "+i"), ("i", "+ai"), ("a/deep", "+a"), ("a", "+a")):
        subprocess.run(["chattr", flag, str(tree / path)], check=True)
    assert tree_removal.remove(tree) == ""
    assert not tree.exists()


@as_root
def test_a_mount_is_not_entered_and_the_rest_goes_on(tree: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / "below").mkdir(parents=True)
    target = tree / "a/b/mnt"
    target.mkdir(parents=True)
    (tree / "file").touch()
    (tree / "other/x").mkdir(parents=True)
    # A bind mount of the same file system has the same device number.
    subprocess.run(["mount", "--bind", str(precious), str(target)], check=True)
    try:
        why = tree_removal.remove(tree)
        assert "a file system is mounted there" in why
        assert (precious / "below").is_dir()
        assert not (tree / "file").exists()
        assert not (tree / "other").exists()
    finally:
        subprocess.run(["umount", str(next(tree.rglob("mnt")))], check=True)
    assert tree_removal.remove(tree) == ""
