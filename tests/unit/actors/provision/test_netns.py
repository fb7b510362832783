"""Routes from the kernel's table; the containerd tier tests the namespaces."""

from __future__ import annotations

import pytest

from actors.provision import netns
from proto.errors import DriverError

HEAD = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


def test_the_gateway_is_that_of_the_default_route() -> None:
    routes = (
        HEAD
        + "eth0\t00401AAC\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0\n"
        + "eth0\t00000000\t01401AAC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    )
    assert netns.gateway(routes) == "172.26.64.1"


@pytest.mark.parametrize("routes", ["", HEAD, HEAD + "eth0\n"])
def test_without_a_default_route_there_is_none(routes: str) -> None:
    assert netns.gateway(routes) == ""


@pytest.mark.parametrize("path", ["/no/such/netns", "/dev/null", ""])
def test_what_is_no_namespace_is_named(path: str) -> None:
    with pytest.raises(DriverError, match=r"cannot enter the allocation.s network namespace"):
        netns.inspect(path)
