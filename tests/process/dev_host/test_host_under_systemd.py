"""Tests of `containerd-driver run` in a unit of `Type=notify`: the notifications to systemd."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.plugin.scripted_host import DEADLINE_S, Host
from tests.support.waiting import slowed


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Opens systemd's end: a datagram socket whose address the environment names."""
    address = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(address))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(address))
        end.settimeout(slowed(DEADLINE_S))
        yield end


def heard(systemd: socket.socket) -> str:
    return systemd.recv(4096).decode()


def test_the_unit_is_started_once_every_task_runs(host: Host, systemd: socket.socket) -> None:
    process = host.start(host.task("wait", name="one"), host.task("wait", name="two"))
    assert heard(systemd) == "STATUS=1 of 2 tasks running"
    assert heard(systemd) == "READY=1\nSTATUS=2 of 2 tasks running"
    process.send_signal(signal.SIGTERM)
    assert heard(systemd) == "STOPPING=1\nSTATUS=2 of 2 tasks running"
    assert heard(systemd) == "STATUS=1 of 2 tasks running"
    assert heard(systemd) == "STATUS=0 of 2 tasks running"
    assert host.ended(process)[0] == 143


def test_a_unit_whose_task_does_not_start_is_never_started(
    host: Host, systemd: socket.socket
) -> None:
    status, _, _ = host.run(host.task(image="refused"))
    assert status == 125
    systemd.setblocking(False)
    with pytest.raises(BlockingIOError):
        heard(systemd)
