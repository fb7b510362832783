"""The tail of a command's output, within a budget shared by all commands."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.exec.tail import ALL_BYTES, LEAST_BYTES, MOST_BYTES, TailBudget


@given(st.lists(st.binary(max_size=3 * MOST_BYTES), max_size=8))
def test_the_end_of_a_stream_is_kept(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    with TailBudget().streams() as (stdout, stderr):
        for part in parts:
            stdout.add(part)
        kept = stdout.take()
        assert kept == whole[-MOST_BYTES:]
        assert stdout.dropped == len(whole) - len(kept)
        assert (stderr.take(), stderr.dropped) == (b"", 0)


@pytest.mark.parametrize("commands", [1, 30, 100, 300])
def test_many_commands_share_one_budget_and_each_keeps_its_guaranteed_bytes(
    commands: int,
) -> None:
    budget = TailBudget()
    with ExitStack() as running:
        tails = [tail for _ in range(commands) for tail in running.enter_context(budget.streams())]
        for tail in tails:
            for _ in range(10):
                tail.add(b"x" * MOST_BYTES)
        kept = [len(tail.take()) for tail in tails]
        assert sum(kept) <= ALL_BYTES
        assert LEAST_BYTES <= min(kept) <= max(kept) <= MOST_BYTES
    assert budget.share() == MOST_BYTES
