"""Network namespaces of allocations, created by the driver in Nomad's place."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.health import network_checks
from actors.provision import alloc_networks
from containerd import syscalls
from proto.errors import Code, DriverError

ALLOC = str(uuid.uuid4())
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone creates network namespaces")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Yields a directory of the test's own, which is unmounted afterwards."""
    place = tmp_path / "var/run/netns"
    yield place
    with contextlib.suppress(OSError):  # no test has mounted the directory
        syscalls.unmount(str(place))


@as_root
def test_a_namespace_is_created_once_and_removed_by_the_allocations_id(directory: Path) -> None:
    network, created = alloc_networks.create(ALLOC, "db.internal", directory)
    assert (network.path, created) == (f"{directory}/{ALLOC}", True)
    assert network.labels == {"docker_sandbox_hostname": "db.internal"}
    inode = Path(network.path).stat().st_ino
    assert inode != Path("/proc/self/ns/net").stat().st_ino
    again, created = alloc_networks.create(ALLOC, "db.internal", directory)
    assert (again, created) == (network, False)
    assert Path(network.path).stat().st_ino == inode
    for _ in range(2):
        alloc_networks.destroy(ALLOC, directory)
        assert list(directory.iterdir()) == []


@as_root
def test_a_file_of_an_interrupted_creation_is_no_namespace(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / ALLOC).touch()
    network, created = alloc_networks.create(ALLOC, "", directory)
    assert (network.labels, created) == ({}, True)
    assert alloc_networks.is_mounted(Path(network.path))
    alloc_networks.destroy(ALLOC, directory)


@pytest.mark.parametrize("alloc_id", ["", "..", "../x", "a/b", "a\0b", "a\n", "-x", "a" * 200])
def test_an_id_that_is_no_name_of_a_file_is_refused(directory: Path, alloc_id: str) -> None:
    for ask in (
        lambda: alloc_networks.create(alloc_id, "", directory),
        lambda: alloc_networks.destroy(alloc_id, directory),
    ):
        with pytest.raises(DriverError) as refused:
            ask()
        assert refused.value.code is Code.INVALID
    assert not directory.exists()


@pytest.mark.parametrize("hostname", ["two words", "a\n127.0.0.1 evil", "a" * 64, "db."])
def test_a_host_name_that_no_kernel_takes_is_refused_before_the_creation(
    directory: Path, hostname: str
) -> None:
    with pytest.raises(DriverError, match="is not a host name"):
        alloc_networks.create(ALLOC, hostname, directory)
    assert not directory.exists()


@as_root
def test_the_doctor_names_old_namespaces_without_a_process(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = tmp_path / "proc/7/ns"
    processes.mkdir(parents=True)
    (processes / "net").symlink_to("/proc/self/ns/net")
    path = alloc_networks.create(ALLOC, "", directory)[0].path
    assert list(network_checks.check(tmp_path)) == []  # new: the allocation may fetch an image
    monkeypatch.setattr(network_checks, "_UNUSED_S", -1.0)
    [finding] = network_checks.check(tmp_path)
    assert (
        f"1 network namespaces of allocations have no process for an hour: {ALLOC}" in finding.text
    )
    (processes / "net").unlink()
    (processes / "net").symlink_to(path)
    assert list(network_checks.check(tmp_path)) == []
    alloc_networks.destroy(ALLOC, directory)
