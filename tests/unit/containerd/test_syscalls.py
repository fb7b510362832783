"""openat2 on real directories: the walk stays below the given root."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from containerd.syscalls import RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "file").write_text("ours")
    (tmp_path / "outside").write_text("theirs")
    (tmp_path / "inside" / "link").symlink_to("file")
    (tmp_path / "inside" / "escape").symlink_to("../outside")
    descriptor = os.open(tmp_path / "inside", os.O_PATH)
    yield descriptor
    os.close(descriptor)


def read(root: int, path: str, resolve: int) -> str:
    descriptor = openat2(root, path, os.O_RDONLY, resolve)
    try:
        assert not os.get_inheritable(descriptor)
        return os.read(descriptor, 64).decode()
    finally:
        os.close(descriptor)


def test_a_file_beneath_is_opened_and_the_descriptor_is_closed_on_exec(root: int) -> None:
    assert read(root, "file", RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS) == "ours"


@pytest.mark.parametrize(
    ("path", "resolve", "number"),
    [
        ("../outside", RESOLVE_BENEATH, errno.EXDEV),
        ("/etc/passwd", RESOLVE_BENEATH, errno.EXDEV),
        ("escape", RESOLVE_BENEATH, errno.EXDEV),
        ("link", RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, errno.ELOOP),
        ("none", RESOLVE_BENEATH, errno.ENOENT),
        ("escape", RESOLVE_IN_ROOT, errno.ENOENT),
    ],
)
def test_a_walk_that_breaks_a_rule_fails_with_the_kernels_number(
    root: int, path: str, resolve: int, number: int
) -> None:
    with pytest.raises(OSError, match=path) as caught:
        openat2(root, path, os.O_RDONLY, resolve)
    assert caught.value.errno == number


def test_a_path_with_a_nul_byte_is_never_cut_short(root: int) -> None:
    with pytest.raises(ValueError, match="NUL"):
        openat2(root, "file\0.json", os.O_RDONLY, RESOLVE_BENEATH)
