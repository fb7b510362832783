"""The plugin's hold on the logs of a task taken over from the Go driver."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.lifecycle.go_takeover import HeldLogs
from actors.model.task_logs import LogTarget


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[int]:
    """Opens the read end of a FIFO, as a worker does."""
    os.mkfifo(tmp_path / "fifo")
    descriptor = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    yield descriptor
    os.close(descriptor)


GO_TASK: Any = SimpleNamespace(from_go_driver=True, state=SimpleNamespace(log=LogTarget()))
COLLECTED: Any = SimpleNamespace(
    from_go_driver=False, state=SimpleNamespace(log=LogTarget(type="files"))
)
FROM_NOMAD: Any = SimpleNamespace(from_go_driver=False, state=SimpleNamespace(log=LogTarget()))


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
    held.hold(GO_TASK, link(reader))
    assert has_writer(reader)
    held.hold(GO_TASK, link(reader))
    assert has_writer(reader)
    held.exited()
    assert not has_writer(reader)


def test_a_worker_that_is_found_again_after_the_end_has_its_log_held_no_more(reader: int) -> None:
    held = HeldLogs()
    held.release()
    held.hold(GO_TASK, link(reader))
    assert not has_writer(reader)


def test_the_source_of_a_collected_log_is_held_until_the_last_line_is_written() -> None:
    source, writer = os.pipe()
    held = HeldLogs()
    held.hold(COLLECTED, SimpleNamespace(logs={}, relays=[f"/proc/self/fd/{source}"]))  # type: ignore[arg-type]
    os.write(writer, b"last")
    for descriptor in (source, writer):
        os.close(descriptor)
    held.exited()
    held.drained(complete=False)
    assert held.open
    ((kept,),) = (held._descriptors,)
    assert os.read(kept, 9) == b"last"
    held.drained(complete=True)
    assert not held.open
    assert not held._descriptors


def test_a_log_that_nomad_collects_is_not_held(reader: int) -> None:
    held = HeldLogs()
    held.hold(FROM_NOMAD, link(reader))
    assert not has_writer(reader)
