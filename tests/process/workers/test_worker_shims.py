"""Tests of a worker beside shims that break connections, or speak another protocol."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.waiting import slowed
from tests.support.workers.answers import error_of, finish
from tests.support.workers.peers import LauncherProcess
from workers.protocol import ShimTarget


class Impostor:
    """A listener that accepts like a shim, then treats connections by the test's script."""

    def __init__(self, path: Path, act: Callable[[socket.socket, int], None]) -> None:
        self.target = ShimTarget(
            address=f"unix://{path}", api=2, namespace="n", container_id="impostor"
        )
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._act = act
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(slowed(10))

    def _serve(self) -> None:
        number = 0
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                self._act(sock, number)
            number += 1


def state_running(sock: socket.socket) -> None:
    """Answers the second call, State: no pid, running."""
    asked = b""
    while b"State" not in asked:
        asked += sock.recv(65536)
    body = b"\x12\x02\x20\x02"
    sock.sendall(struct.pack(">IIBB", len(body), 3, 2, 0) + body)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\0\0\2\0\0\0\3\2\0\xff\xff",  # a response without an envelope
        b"\0\0\0\4\0\0\0\3\2\0\x12\2\xff\xff",  # an envelope without a State
    ],
)
def test_a_shim_that_speaks_no_ttrpc_is_refused(
    launcher: LauncherProcess, name: str, data: bytes
) -> None:
    def act(sock: socket.socket, _: int) -> None:
        sock.recv(65536)
        sock.sendall(data)

    impostor = Impostor(launcher.state_dir / f"{name}.sock", act)
    worker = launcher.worker(name)
    assert error_of(worker.watch(impostor.target))[0] in {"unavailable", "corrupt"}
    assert worker.ask("hello")["watching"] is False
    finish(worker)
    impostor.close()


def test_a_connection_that_breaks_is_made_again_and_the_task_is_not_lost(
    launcher: LauncherProcess, name: str
) -> None:
    def act(sock: socket.socket, number: int) -> None:
        state_running(sock)
        if number == 1:
            body = b"\x12\x02\x08\x04"  # status 4 to Wait
            sock.sendall(struct.pack(">IIBB", len(body), 1, 2, 0) + body)
            sock.recv(1)

    impostor = Impostor(launcher.state_dir / f"{name}.sock", act)
    worker = launcher.worker(name)
    assert worker.watch(impostor.target)["status"] == "running"
    event = worker.event("exit")
    assert (event["code"], event["lost"]) == (4, False)
    finish(worker)
    impostor.close()


def test_a_shim_of_an_unknown_api_is_refused_by_its_version(
    launcher: LauncherProcess, name: str
) -> None:
    worker = launcher.worker(name)
    target = ShimTarget(address="unix:///x", api=4, namespace="n", container_id="c")
    code, text = error_of(worker.watch(target))
    assert code == "unsupported"
    assert "4" in text
    finish(worker)
