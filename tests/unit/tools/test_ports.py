"""No server of the tests takes a port twice: the port is part of an image's name."""

from __future__ import annotations

import socket

from tests.support.registries import ports
from tests.support.registries.raw_server import RawServer
from tests.support.registries.recording_server import Answer, RecordingServer


def test_a_port_of_an_earlier_server_is_not_taken_again() -> None:
    with RecordingServer(lambda _: Answer(200, {}, b"")) as first:
        taken = int(first.host.rpartition(":")[2])
    offered = iter([taken, taken, 0])
    made: list[socket.socket] = []

    def offer() -> socket.socket:
        made.append(socket.create_server(("127.0.0.1", next(offered)), reuse_port=True))
        return made[-1]

    with ports.fresh(offer, lambda one: int(one.getsockname()[1]), socket.socket.close) as second:
        assert second.getsockname()[1] != taken
        assert [one.fileno() >= 0 for one in made] == [False, False, True]


def test_all_servers_share_the_list_of_ports() -> None:
    with RawServer(lambda _: []) as first, RecordingServer(lambda _: Answer()) as second:
        hosts = {first.host, second.host}
    for host in hosts:
        assert not ports.is_new(int(host.rpartition(":")[2]))
    assert not ports.is_new(ports.free_port())
