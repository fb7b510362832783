"""The identity of a process: pid and start time."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from workers import identity


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_process_is_the_same_as_long_as_it_lives() -> None:
    assert identity.identify(os.getpid()) == identity.identify(os.getpid())


def test_a_process_that_is_gone_has_no_identity() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert identity.identify(process.pid) is None
    assert identity.start_ticks(process.pid) is None


def test_a_name_with_brackets_and_spaces_does_not_move_the_start_time() -> None:
    script = "printf 'a) R 1 (b' > /proc/self/comm; read -r _"
    process = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE)
    try:
        own = identity.start_ticks(os.getpid())
        ticks = identity.start_ticks(process.pid)
        assert own is not None
        assert ticks is not None
        assert own <= ticks < own + 10**7
    finally:
        process.communicate(b"\n")


def test_a_pidfd_signals_the_process_that_was_meant() -> None:
    process = subprocess.Popen(["sleep", "60"])
    found = identity.identify(process.pid)
    assert found is not None
    descriptor = identity.open_pidfd(found)
    assert descriptor is not None
    signal.pidfd_send_signal(descriptor, signal.SIGTERM)
    os.close(descriptor)
    assert process.wait(10) == -signal.SIGTERM


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "of another boot"}])
def test_another_process_with_the_same_pid_is_not_opened(change: dict[str, object]) -> None:
    found = identity.identify(os.getpid())
    assert found is not None
    other = identity.Identity.from_wire({**found.to_wire(), **change})
    before = open_files()
    assert identity.open_pidfd(other) is None
    assert open_files() == before
