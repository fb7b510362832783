"""Ports of the machine: choice, refusal and reservation."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from actors.model.nomad import PortMapping
from plugin.host.job.network import GroupNetwork, Port
from plugin.host.network.ports import HostPorts, container_port
from proto.errors import Code, DriverError

HOME = "127.0.0.1"


@pytest.fixture
def ports() -> Iterator[HostPorts]:
    with contextlib.closing(HostPorts(HOME)) as created:
        yield created


@pytest.fixture
def busy() -> Iterator[int]:
    """Yields a port with a listening socket."""
    with socket.create_server((HOME, 0)) as server:
        yield server.getsockname()[1]


def network(*ports: Port, mode: str = "bridge") -> GroupNetwork:
    return GroupNetwork(mode=mode, ports=ports)


def is_free(number: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind((HOME, number))
        except OSError:
            return False
        return True


def test_dynamic_ports_differ_and_are_in_nomads_range(ports: HostPorts) -> None:
    wanted = network(*(Port(label=str(number)) for number in range(20)))
    values = [port.value for port in ports.choose("g", wanted)]
    assert len(set(values)) == 20
    assert all(20000 <= value <= 32000 for value in values)


@pytest.mark.parametrize(("to", "expected"), [(0, 0), (8080, 8080)])
def test_a_dynamic_port_has_the_port_of_the_container(
    ports: HostPorts, to: int, expected: int
) -> None:
    (port,) = ports.choose("g", network(Port(label="a", to=to)))
    assert (port.label, port.to, port.host_ip) == ("a", expected, HOME)


def test_minus_one_is_the_chosen_port_itself(ports: HostPorts) -> None:
    (port,) = ports.choose("g", network(Port(label="a", to=-1)))
    assert port.to == port.value


def test_the_container_port_is_the_hosts_unless_the_job_sets_another() -> None:
    assert container_port(PortMapping(label="a", value=5, to=0, host_ip="")) == 5
    assert container_port(PortMapping(label="a", value=5, to=-1, host_ip="")) == 5
    assert container_port(PortMapping(label="a", value=5, to=6, host_ip="")) == 6


def test_a_published_port_stays_bound_until_the_end(ports: HostPorts) -> None:
    (port,) = ports.choose("g", network(Port(label="a")))
    assert not is_free(port.value)
    assert not is_free(port.value, socket.SOCK_DGRAM)
    ports.close()
    assert is_free(port.value)
    assert is_free(port.value, socket.SOCK_DGRAM)


def test_a_port_of_the_hosts_network_is_left_for_the_task_to_bind(ports: HostPorts) -> None:
    (port,) = ports.choose("g", network(Port(label="a"), mode="host"))
    assert is_free(port.value)


def test_a_static_port_that_is_in_use_cannot_be_published(ports: HostPorts, busy: int) -> None:
    with pytest.raises(DriverError, match=rf"port \"a\": {HOME}:{busy} is in use") as error:
        ports.choose('group "g"', network(Port(label="a", static=busy)))
    assert error.value.code is Code.EXHAUSTED
    assert f"sport = {busy}" in error.value.resolution


def test_a_preview_reserves_no_port_and_ignores_ports_in_use(busy: int) -> None:
    ports = HostPorts(HOME, hold=False)
    static, dynamic = ports.choose("g", network(Port(label="a", static=busy), Port(label="b")))
    assert static.value == busy
    assert is_free(dynamic.value)


def test_a_static_port_of_the_hosts_network_is_not_checked(ports: HostPorts, busy: int) -> None:
    (port,) = ports.choose("g", network(Port(label="a", static=busy), mode="host"))
    assert (port.value, port.to) == (busy, 0)


@pytest.mark.parametrize("mode", ["bridge", "host"])
def test_two_allocations_cannot_have_the_same_static_port(ports: HostPorts, mode: str) -> None:
    with socket.create_server((HOME, 0)) as server:
        number = server.getsockname()[1]
    wanted = network(Port(label="a", static=number), mode=mode)
    ports.choose('group "g[0]"', wanted)
    with pytest.raises(DriverError, match=rf'"g\[1\]": port "a": {number} is the port of group "g'):
        ports.choose('group "g[1]"', wanted)


def test_ports_keep_the_order_of_the_job(ports: HostPorts) -> None:
    with socket.create_server((HOME, 0)) as server:
        number = server.getsockname()[1]
    wanted = network(Port(label="x"), Port(label="y", static=number), Port(label="z"))
    assert [port.label for port in ports.choose("g", wanted)] == ["x", "y", "z"]


def test_an_address_of_another_machine_is_refused() -> None:
    with contextlib.closing(HostPorts("192.0.2.1")) as ports:
        with pytest.raises(DriverError, match="cannot be bound: Cannot assign") as error:
            ports.choose("g", network(Port(label="a")))
        assert "--host-ip" in error.value.resolution
