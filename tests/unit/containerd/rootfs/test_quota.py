"""Quotas of projects: refusals. The containerd tier limits files on a file system with quotas."""

from __future__ import annotations

from pathlib import Path

import pytest

from containerd.api.records import Mount
from containerd.rootfs import quota
from proto.errors import Code, DriverError


def test_a_snapshot_without_a_writable_layer_is_refused(tmp_path: Path) -> None:
    bind = Mount(type="bind", source=str(tmp_path), options=("rbind", "rw"))
    for mounts in ((), (bind,)):
        with pytest.raises(DriverError, match="no directory of its own") as refused:
            quota.limit(mounts, 8 << 20)
        assert refused.value.code is Code.UNSUPPORTED


def test_a_file_system_without_quotas_is_refused() -> None:
    upper = Mount(type="overlay", source="", options=("workdir=/proc", "upperdir=/proc/self/task"))
    with pytest.raises(DriverError, match="/proc does not enforce quotas of projects"):
        quota.check("/proc")
    with pytest.raises(DriverError, match="does not enforce quotas of projects"):
        quota.limit((upper,), 8 << 20)
    with pytest.raises(DriverError, match="cannot open /proc/none: No such file"):
        quota.check("/proc/none")


def test_the_release_of_a_limit_is_silent_where_the_file_system_is_gone() -> None:
    quota.release("1073741824 /proc/none")
    quota.release("1073741824 /proc")
