"""Retries of an attempt, and of steps while containerd is away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from actors.lifecycle.retry import Retry, retry
from proto.errors import Code, DriverError


def failing(times: int, code: Code) -> tuple[Callable[[], Awaitable[int]], list[int]]:
    """Returns an attempt with `times` failures, and a list with an entry for each call."""
    calls: list[int] = []

    async def attempt() -> int:
        calls.append(len(calls) + 1)
        if len(calls) <= times:
            raise DriverError(f"failure {len(calls)}", code=code)
        return len(calls)

    return attempt, calls


@pytest.mark.parametrize("failures", [0, 1, 2])
async def test_an_attempt_is_repeated_until_it_succeeds(failures: int) -> None:
    attempt, _ = failing(failures, Code.ALREADY_EXISTS)
    seen: list[str] = []

    async def before_next(error: DriverError) -> None:
        seen.append(error.brief)

    assert await retry((0.0, 0.0), attempt, before_next) == failures + 1
    assert seen == [f"failure {number + 1}" for number in range(failures)]


async def test_the_last_failure_is_raised_and_prepares_no_further_attempt() -> None:
    attempt, calls = failing(9, Code.ALREADY_EXISTS)
    seen: list[str] = []

    async def before_next(error: DriverError) -> None:
        seen.append(error.brief)

    with pytest.raises(DriverError, match="failure 3"):
        await retry((0.0, 0.0), attempt, before_next)
    assert calls == [1, 2, 3]
    assert seen == ["failure 1", "failure 2"]


async def test_a_failure_that_no_repeat_mends_ends_the_attempts() -> None:
    attempt, calls = failing(9, Code.INVALID)

    async def before_next(error: DriverError) -> None:
        raise error

    with pytest.raises(DriverError, match="failure 1"):
        await retry((0.0, 0.0), attempt, before_next)
    assert calls == [1]


async def test_every_failure_is_repeated_where_no_preparation_is_needed() -> None:
    attempt, calls = failing(2, Code.INTERNAL)
    assert await retry((0.0, 0.0), attempt) == 3
    assert calls == [1, 2, 3]


async def test_a_step_is_repeated_only_while_containerd_is_away() -> None:
    away, _ = failing(1, Code.UNAVAILABLE)
    assert await Retry()(away) == 2
    other, calls = failing(1, Code.INVALID)
    with pytest.raises(DriverError, match="failure 1"):
        await Retry()(other)
    assert calls == [1]


async def test_without_a_budget_each_step_is_tried_once() -> None:
    away, calls = failing(1, Code.UNAVAILABLE)
    with pytest.raises(DriverError, match="failure 1"):
        await Retry(0.0)(away)
    assert calls == [1]
