"""An allocation's namespace without an address: a fault, a sign of a fault, or correct."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from actors.files import private_files
from actors.model.nomad import NetworkIsolation, PortMapping, Resources, TaskConfig
from actors.provision import lost_network
from actors.provision.netns import Network
from proto.errors import DriverError

WITH = Network(addresses=("10.0.0.2", "fd00::2"), interfaces=("eth0",))
WITHOUT = Network()
GROUP = NetworkIsolation(mode=1, path="/var/run/netns/a")


@pytest.fixture
def alloc(tmp_path: Path) -> Path:
    """Creates an allocation's directory with a task's directory."""
    (tmp_path / "t").mkdir()
    return tmp_path


def task(alloc: Path, **more: Any) -> TaskConfig:
    fields: dict[str, Any] = {"network": GROUP, **more}
    return TaskConfig(id="a/t/1", name="t", alloc_id="a", alloc_dir=str(alloc), **fields)


def remember(alloc: Path, network: Network) -> None:
    private_files.write(str(alloc), "t", lost_network.memory(network))


def test_a_start_that_finds_no_address_where_the_last_one_did_fails_and_may_be_tried_again(
    alloc: Path,
) -> None:
    remember(alloc, WITH)
    with pytest.raises(DriverError, match="has lost the allocation's address") as lost:
        lost_network.check(task(alloc), WITHOUT)
    assert lost.value.recoverable
    assert "/var/run/netns/a" in lost.value.brief
    assert "the address was 10.0.0.2 fd00::2" in lost.value.details
    assert "nomad alloc stop" in lost.value.resolution


@pytest.mark.parametrize(
    "named",
    [
        {"env": {"NOMAD_ALLOC_IP_http": "10.0.0.2"}},
        {"network": NetworkIsolation(mode=1, path="/var/run/netns/a", address="10.0.0.2")},
    ],
    ids=["environment", "hosts config"],
)
def test_an_address_that_nomad_names_is_missed_at_the_first_start(
    alloc: Path, named: dict[str, Any]
) -> None:
    with pytest.raises(DriverError, match=r"the address was 10\.0\.0\.2"):
        lost_network.check(task(alloc, **named), WITHOUT)
    assert lost_network.check(task(alloc, **named), WITH) == ()


def test_a_network_of_mode_none_has_no_address_rightly(alloc: Path) -> None:
    for _ in range(2):
        assert lost_network.check(task(alloc), WITHOUT) == ()
        remember(alloc, WITHOUT)


def test_the_hosts_network_is_not_looked_at(alloc: Path) -> None:
    remember(alloc, WITH)
    assert lost_network.check(task(alloc, network=None), None) == ()


def test_signs_of_a_missing_address_are_told(alloc: Path) -> None:
    bare = Network(interfaces=("eth0",))
    (note,) = lost_network.check(task(alloc), bare)
    assert "interface eth0" in note
    ports = Resources(ports=(PortMapping(label="http", value=1, to=1, host_ip=""),))
    (note,) = lost_network.check(task(alloc, resources=ports), WITHOUT)
    assert "port http" in note


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_else_lies_in_the_memorys_place_is_not_read(alloc: Path, kind: str) -> None:
    remember(alloc, WITH)
    place = alloc / "t" / private_files.DIRECTORY / lost_network.FILE
    place.unlink()
    if kind == "link":
        place.symlink_to("/etc/hostname")
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()
    assert lost_network.check(task(alloc), WITHOUT) == ()
