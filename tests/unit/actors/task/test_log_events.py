"""The task event about a log without a reader."""

from __future__ import annotations

import pytest

from actors.task import log_events
from workers import protocol
from workers.protocol import LogState

MIB = 1 << 20


def told(
    state: str, *, kept: int = 0, dropped: int = 0, limit: int = 16 * MIB, problem: str = ""
) -> str:
    return log_events.sentence(
        LogState(
            stream="stdout",
            state=state,
            kept=kept,
            dropped=dropped,
            limit=limit,
            wanted=16 * MIB,
            problem=problem,
        )
    )


@pytest.mark.parametrize("state", [protocol.STALLED, protocol.DROPPING, protocol.BLOCKED])
def test_who_has_no_reader_is_told_what_happens_and_what_to_do(state: str) -> None:
    text = told(state, kept=3 * MIB // 2)
    assert "obody reads stdout" in text
    assert "16 MiB" in text
    assert text.endswith("restart the Nomad agent to start logmon again")


def test_what_is_kept_and_what_was_dropped_are_numbers() -> None:
    assert "1.5 MiB wait for a reader" in told(protocol.STALLED, kept=3 * MIB // 2)
    assert "12 bytes wait" in told(protocol.STALLED, kept=12)
    assert told(protocol.READING, dropped=77).endswith("77 bytes were dropped")
    assert told(protocol.READING) == "stdout is read again; no bytes were lost"


def test_a_kernel_that_gives_less_than_was_asked_for_is_named() -> None:
    text = told(protocol.DROPPING, limit=MIB)
    assert "1 MiB (the kernel gives no more of 16 MiB" in text
    assert "CAP_SYS_RESOURCE" in text


def test_a_state_of_a_newer_worker_is_passed_over() -> None:
    assert told("compressed") == ""


def test_a_log_that_the_worker_cannot_write_is_told_with_the_reason() -> None:
    full = "No space left on device"
    for state in (protocol.STALLED, protocol.DROPPING, protocol.BLOCKED):
        text = told(state, kept=3 * MIB // 2, problem=full)
        assert text.startswith(
            "stdout cannot be written to the allocation's log: No space left on device; "
        )
        assert "16 MiB" in text
    assert told(protocol.READING, dropped=77, problem=full).endswith("77 bytes were dropped")
    assert told(protocol.READING, problem=full) == "stdout is written again; no bytes were lost"
    assert told("compressed", problem=full) == ""
