"""Count and report of OOM kills, with notices of the kernel and a clock of the test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from workers.loop import PRIORITY, READ, Loop, Timer
from workers.oom import OomWatch


class Clock(Loop):
    """An event loop with timers fired by a test."""

    def __init__(self) -> None:
        super().__init__()
        self.due: list[tuple[float, Timer]] = []
        self.watched: dict[int, Callable[[int], None]] = {}

    def watch(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:  # noqa: ARG002
        self.watched[descriptor] = handler

    def forget(self, descriptor: int) -> None:
        self.watched.pop(descriptor, None)

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(0.0, call)
        self.due.append((seconds, timer))
        return timer

    def fire(self) -> float:
        """Calls the next due timer, and returns the timer's pause."""
        self.due.sort(key=lambda entry: entry[0])
        seconds, timer = self.due.pop(0)
        if not timer.cancelled:
            timer.call()
        return seconds


class Cgroup:
    """Readings of a cgroup: kills, and whether the cgroup exists."""

    oom_events = READ

    def __init__(self, notice: int = 7) -> None:
        self.kills = 0
        self.oom_notice = notice
        self.there = True

    def oom_kills(self) -> int:
        return self.kills if self.there else 0

    def clear_notice(self) -> bool:
        return self.there


@pytest.fixture
def clock() -> Iterator[Clock]:
    made = Clock()
    yield made
    made.close()


def watch(clock: Clock, cgroup: Cgroup) -> tuple[OomWatch, list[int]]:
    told: list[int] = []
    return OomWatch(clock, cast("Any", cgroup), told.append), told


def test_kills_are_reported_at_once_and_then_once_in_a_minute(clock: Clock) -> None:
    cgroup = Cgroup()
    _, told = watch(clock, cgroup)
    for kills in (1, 2, 5):
        cgroup.kills = kills
        clock.watched[7](READ)
        assert clock.watched == {}
        assert clock.fire() == 2.0
        assert told == [1]
    assert clock.fire() == 60.0
    assert told == [1, 5]


def test_a_task_at_its_limit_wakes_its_worker_less_and_less(clock: Clock) -> None:
    _, told = watch(clock, Cgroup())
    pauses = []
    for _ in range(7):
        clock.watched[7](READ)
        pauses.append(clock.fire())
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 32.0, 32.0]
    assert told == []


def test_a_kill_that_was_not_counted_is_new(clock: Clock) -> None:
    cgroup = Cgroup()
    cgroup.kills = 3
    watching, told = watch(clock, cgroup)
    assert watching.counted == 3
    cgroup.kills = 4
    assert watching.counted == 3
    watching.count()
    assert (watching.counted, told) == (4, [4])


def test_without_notices_each_sample_counts_kills(clock: Clock) -> None:
    cgroup = Cgroup(notice=-1)
    watching, told = watch(clock, cgroup)
    cgroup.kills = 1
    watching.sampled()
    assert (clock.watched, told) == ({}, [1])


def test_a_missing_cgroup_is_not_watched_any_more(clock: Clock) -> None:
    cgroup = Cgroup()
    watching, _ = watch(clock, cgroup)
    cgroup.there = False
    clock.watched[7](READ)
    clock.fire()
    assert clock.watched == {}
    watching.close()


def test_the_kernel_reports_a_change_of_a_file_of_version_2_once() -> None:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    roots = [Path(words[1]) for words in mounts if words[2] == "cgroup2"]
    if not roots or not os.access(roots[0], os.W_OK) or os.geteuid():
        pytest.skip("no cgroup of version 2 that may be written to")
    place = roots[0] / f"cd-oom-{os.getpid()}"
    place.mkdir()
    try:
        events = os.open(place / "cgroup.events", os.O_RDONLY)
        loop, seen = Loop(), list[int]()

        def changed(ready: int) -> None:
            seen.append(ready)
            loop.forget(events)
            os.pread(events, 4096, 0)
            loop.watch(events, PRIORITY, changed)
            loop.later(0.2, loop.stop)

        os.pread(events, 4096, 0)
        loop.watch(events, PRIORITY, changed)
        with subprocess.Popen(["sleep", "60"]) as process:
            (place / "cgroup.procs").write_text(str(process.pid))
            loop.run()
            process.kill()
        assert len(seen) == 1
        assert seen[0] & PRIORITY
        loop.close()
        os.close(events)
    finally:
        place.rmdir()
