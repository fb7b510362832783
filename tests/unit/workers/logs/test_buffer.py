"""Decisions of the log buffer, with a clock of the test and a FIFO of the kernel."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workers import protocol
from workers.logs import pipe
from workers.logs.buffer import LogBuffer
from workers.loop import Loop

PATIENCE_MS = 100
SPEC = protocol.WorkerSpec(
    name="t", dir="", log_patience_ms=PATIENCE_MS, log_buffer_bytes=pipe.USUAL_BYTES
)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[int]:
    """Opens both ends of a FIFO without blocking."""
    os.mkfifo(tmp_path / "log")
    descriptor = os.open(tmp_path / "log", os.O_RDWR | os.O_NONBLOCK)
    yield descriptor
    os.close(descriptor)


def fill(fifo: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fifo, b"a line of sixteen\n" * 100)


def write_a_while(fifo: int) -> None:
    """Waits until the kernel's clock of files has moved."""
    before = os.fstat(fifo).st_mtime_ns
    while os.fstat(fifo).st_mtime_ns == before:
        os.write(fifo, b".")


def test_a_write_into_space_that_a_check_made_is_no_sign_of_a_reader(
    fifo: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop()
    states: list[str] = []
    buffer = LogBuffer(loop, fifo, SPEC, lambda _: None, lambda: states.append(buffer.state))

    def written_meanwhile(is_full: Callable[[int], bool]) -> Callable[[int], bool]:
        def look(descriptor: int) -> bool:
            if buffer.dropped and not is_full(descriptor):
                write_a_while(fifo)
                fill(fifo)
            return is_full(descriptor)

        return look

    fill(fifo)
    buffer.filled()
    monkeypatch.setattr(pipe, "is_full", written_meanwhile(pipe.is_full))
    loop.later(PATIENCE_MS / 1000 * 6, loop.stop)
    loop.run()
    assert states == [protocol.DROPPING]
    assert buffer.dropped > pipe.USUAL_BYTES
    loop.close()
