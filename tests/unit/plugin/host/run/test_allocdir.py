"""Removal of an allocation's directory, also with a file system mounted inside."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from plugin.host.run.allocdir import AllocDir

ALLOC = "0d1b8f6e-1111-2222-3333-444455556666"


def test_a_removal_leaves_no_file(tmp_path: Path) -> None:
    alloc = AllocDir(tmp_path / "a b", ALLOC)
    alloc.build(["t"])
    assert alloc.remove() == ""
    assert list((tmp_path / "a b").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_no_file_is_removed_while_a_file_system_is_mounted_inside(tmp_path: Path) -> None:
    alloc = AllocDir(tmp_path / "a b", ALLOC)
    alloc.build(["t"])
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    target = alloc.path / "t/local/mnt"
    target.mkdir()
    subprocess.run(["mount", "--bind", str(precious), str(target)], check=True)
    try:
        assert str(target) in alloc.remove()
        assert (precious / "file").exists()
        assert (alloc.path / "t/secrets").is_dir()
    finally:
        subprocess.run(["umount", str(target)], check=True)
    assert alloc.remove() == ""
