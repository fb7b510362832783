"""The plugin's hold on the logs of a task taken over from the Go driver."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.lifecycle.go_takeover import HeldLogs


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[int]:
    """Opens the read end of a FIFO, as a worker does."""
    os.mkfifo(tmp_path / "fifo")
    descriptor = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    yield descriptor
    os.close(descriptor)


def link(reader: int) -> Any:
    """Returns a stand-in for a WorkerLink."""
    return SimpleNamespace(logs={"fifo": f"/proc/self/fd/{reader}"}, relays=[])


def has_writer(reader: int) -> bool:
    try:
        return os.read(reader, 1) != b""
    except BlockingIOError:
        return True


def test_a_log_is_held_until_its_task_has_ended(reader: int) -> None:
    held = HeldLogs()
    held.hold(link(reader))
    assert has_writer(reader)
    held.hold(link(reader))
    assert has_writer(reader)
    held.release()
    assert not has_writer(reader)


def test_a_worker_that_is_found_again_after_the_end_has_its_log_held_no_more(reader: int) -> None:
    held = HeldLogs()
    held.release()
    held.hold(link(reader))
    assert not has_writer(reader)
