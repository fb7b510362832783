"""The recording server takes no port twice: the port is part of an image's name."""

from __future__ import annotations

import socket
from http.server import ThreadingHTTPServer

import pytest

from tests.support.registries import recording_server
from tests.support.registries.recording_server import Answer, RecordingServer, Request


def answer(_: Request) -> Answer:
    return Answer(200, {}, b"")


def test_a_port_of_an_earlier_server_is_not_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with RecordingServer(answer) as first:
        taken = int(first.host.rpartition(":")[2])
    ports = iter([taken, 0])

    def offers(address: tuple[str, int], *others: object) -> object:
        return ThreadingHTTPServer((address[0], next(ports)), *others)  # type: ignore[arg-type]

    monkeypatch.setattr(recording_server, "ThreadingHTTPServer", offers)
    with RecordingServer(answer) as second:
        assert second.host != first.host
        with socket.create_connection(("127.0.0.1", int(second.host.rpartition(":")[2])), 5):
            pass
