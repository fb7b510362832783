"""The allocation's directories on a machine where something may be mounted in them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from plugin.host.run.allocdir import AllocDir

ALLOC = "0d1b8f6e-1111-2222-3333-444455556666"


def test_removing_takes_everything_away(tmp_path: Path) -> None:
    alloc = AllocDir(tmp_path / "a b", ALLOC)
    alloc.build(["t"])
    assert alloc.remove() == ""
    assert list((tmp_path / "a b").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_nothing_is_removed_while_something_is_mounted_in_it(tmp_path: Path) -> None:
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
