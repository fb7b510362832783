"""Tests of named network namespaces, which need root and nothing else of the containerd tests."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from plugin.host.network import namespaces
from proto.errors import DriverError
from tests.support.kernel.own_network import OwnNetwork
from tests.support.needs import missing

pytestmark = pytest.mark.containerd


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        missing("containerd", "not root: network namespaces need it")


def test_a_new_namespace_has_loopback_alone_and_it_works() -> None:
    with OwnNetwork() as network:
        assert network.links() == ["lo"]
        assert "inet 127.0.0.1/8" in network.run("busybox", "ip", "addr").stdout
        path = Path(namespaces.path(network.name))
        assert path.stat().st_ino != Path("/proc/self/ns/net").stat().st_ino
    assert not path.exists()


def test_a_name_that_is_taken_is_told() -> None:
    with (
        OwnNetwork() as network,
        pytest.raises(DriverError, match=f"cannot create .*: {network.name}: File exists"),
    ):
        namespaces.add([network.name])


def test_of_several_names_those_that_are_there_are_removed() -> None:
    names = [f"cdtest-{uuid.uuid4().hex[:8]}" for _ in range(3)]
    namespaces.add(names[:2])
    namespaces.remove([names[2], *names[:2], names[0]])
    assert not any(Path(namespaces.path(name)).exists() for name in names)


def test_removing_an_interface_that_is_not_there_is_no_failure() -> None:
    namespaces.remove_link("cdtest-none")
