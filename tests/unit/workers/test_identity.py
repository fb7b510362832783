"""The identity of a process: pid and start time."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.waiting import slowed
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
    assert process.wait(slowed(10)) == -signal.SIGTERM


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "of another boot"}])
def test_another_process_with_the_same_pid_is_not_opened(change: dict[str, object]) -> None:
    found = identity.identify(os.getpid())
    assert found is not None
    other = identity.Identity.from_wire({**found.to_wire(), **change})
    before = open_files()
    assert identity.open_pidfd(other) is None
    assert open_files() == before


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -15 $$", 143)])
def test_the_exit_code_of_a_process_is_known_until_its_parent_has_read_the_code(
    script: str, code: int
) -> None:
    child = subprocess.Popen(["sh", "-c", f"read line; {script}"], stdin=subprocess.PIPE)
    process = identity.identify(child.pid)
    assert process is not None
    assert identity.waiting_exit_code(process) is None
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identity.waiting_exit_code(process) == code
    stranger = identity.Identity(pid=child.pid, start_ticks=1, boot_id=process.boot_id)
    assert identity.waiting_exit_code(stranger) is None
    child.wait()
    assert identity.waiting_exit_code(process) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_no_exit_code_is_told_to_a_reader_that_may_not_trace_the_process() -> None:
    child = subprocess.Popen(["sh", "-c", "exit 7"])
    process = identity.identify(child.pid)
    assert process is not None
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    reader = os.fork()
    if reader == 0:
        os.setresuid(65534, 65534, 65534)
        os._exit(0 if identity.waiting_exit_code(process) is None else 1)
    assert os.waitpid(reader, 0)[1] == 0
    child.wait()
