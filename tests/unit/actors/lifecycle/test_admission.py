"""Turns of starts in the runtime: their number, their order, and starts that hang or give up."""

from __future__ import annotations

import asyncio
import functools

import pytest

from actors.lifecycle.admission import Admission
from tests.support.waiting import until

LONG_S = 60.0


class Crowd:
    """Starts that wait for turns. `running` and `ended` have their names, in their order."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.running: list[str] = []
        self.ended: list[str] = []
        self.log: list[str] = []
        self.places: dict[str, str] = {}
        self._may_end: dict[str, asyncio.Event] = {}

    def begin(self, *names: str) -> None:
        for name in names:
            self._may_end[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._start(name))

    async def _start(self, name: str) -> None:
        report = functools.partial(self.places.__setitem__, name)
        async with self.admission.turn(lambda line: self.log.append(f"{name}: {line}"), report):
            self.running.append(name)
            await self._may_end[name].wait()
            self.ended.append(name)

    async def end(self, *names: str) -> None:
        for name in names:
            self._may_end[name].set()
            await self.tasks[name]

    async def give_up(self, name: str) -> None:
        self.tasks[name].cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.tasks[name]

    async def runs(self, names: str) -> None:
        """Waits until exactly these starts have got their turns, in this order."""
        await until(lambda: len(self.running) >= len(names), 5, f"{self.running} run")
        await settled()
        assert "".join(self.running) == names


async def settled() -> None:
    """Lets all callbacks that are ready run, and those that follow from them."""
    for _ in range(20):
        await asyncio.sleep(0)


def crowd(at_once: int, counted_s: float = LONG_S, report_after_s: float = LONG_S) -> Crowd:
    return Crowd(Admission(at_once, counted_s, report_after_s))


async def test_as_many_starts_as_turns_run_at_once_and_the_rest_in_its_order() -> None:
    starts = crowd(2)
    starts.begin(*"abcde")
    await starts.runs("ab")
    await starts.end("b")
    await starts.runs("abc")
    await starts.end("a", "c")
    await starts.runs("abcde")
    await starts.end("e", "d")
    assert "".join(starts.ended) == "baced"


async def test_a_start_that_comes_while_others_wait_does_not_overtake() -> None:
    starts = crowd(1)
    starts.begin(*"ab")
    await starts.runs("a")
    # The end of "a" and the begin of "c" come in one round of the event loop.
    ending = asyncio.create_task(starts.end("a"))
    ending.add_done_callback(lambda _: starts.begin("c"))
    await ending
    await starts.runs("ab")
    await starts.end("b", "c")


@pytest.mark.parametrize("loser", ["b", "c", "d"])
async def test_a_waiting_start_that_gives_up_leaves_the_queue(loser: str) -> None:
    starts = crowd(1)
    starts.begin(*"abcd")
    await starts.runs("a")
    await starts.give_up(loser)
    left = "bcd".replace(loser, "")
    await starts.end("a", *left)
    assert "".join(starts.ended) == f"a{left}"
    assert loser not in starts.running


async def test_a_start_that_gives_up_at_the_moment_of_its_turn_passes_the_turn_on() -> None:
    starts = crowd(1)
    async with starts.admission.turn(print, print):
        starts.begin(*"bc")
        await settled()
    # The turn belongs to "b" now, and "b" has not run since.
    await starts.give_up("b")
    await starts.runs("c")
    await starts.end("c")


async def test_a_start_that_gives_up_in_its_turn_ends_the_turn() -> None:
    starts = crowd(1)
    starts.begin(*"ab")
    await starts.runs("a")
    await starts.give_up("a")
    await starts.runs("ab")
    await starts.end("b")


async def test_starts_that_hang_in_all_turns_delay_the_others_only() -> None:
    starts = crowd(2, counted_s=0.05)
    starts.begin(*"abcdef")
    await until(lambda: len(starts.running) == 6, 5, "the last start gets no turn")
    assert "".join(starts.running) == "abcdef"
    assert "a: start is slow, later starts do not wait for this start" in starts.log
    await starts.end(*"abcdef")


async def test_only_a_slow_start_is_logged_as_slow() -> None:
    starts = crowd(1, counted_s=0.05)
    starts.begin("a")
    await starts.end("a")
    starts.begin("b")
    await until(lambda: len(starts.log) == 3, 5, "no start is slow")
    await starts.end("b")
    assert [line[0] for line in starts.log] == ["a", "b", "b"]


async def test_a_slow_start_does_not_end_its_turn_twice() -> None:
    starts = crowd(1, counted_s=0.05)
    starts.begin("a")
    await starts.runs("a")
    starts.admission.counted_s = LONG_S
    starts.begin(*"bc")
    await starts.runs("ab")  # "a" does not count any more
    await starts.end("a")
    await starts.runs("ab")
    await starts.end("b")
    await starts.runs("abc")
    await starts.end("c")


async def test_a_start_that_waits_for_long_reports_its_place_in_the_queue() -> None:
    starts = crowd(2, report_after_s=0.05)
    starts.begin(*"abcde")
    await until(lambda: len(starts.places) == 3, 5, f"{starts.places}")
    assert list(starts.places) == list("cde")
    assert starts.places["d"] == (
        "Waiting to start for 0.05 s: place 2 in the queue of this node, 2 starts run at a time"
    )
    await starts.end(*"abcde")


async def test_a_start_with_a_turn_reports_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    # The test sets the event loop's clock: on a slow machine "b" waits for longer than 0.05 s.
    now = 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    starts = crowd(1, report_after_s=0.05)
    starts.begin(*"ab")
    await settled()
    await starts.end("a")
    await settled()
    assert starts.running == ["a", "b"]
    now = 1.0
    starts.begin("c")
    await settled()
    assert starts.places == {}
    now = 2.0
    await settled()
    assert list(starts.places) == ["c"]
    await starts.end("b", "c")
