"""Faults which `./dev soak` finds: lost or doubled lines, a second copy, growth, zombies."""

from __future__ import annotations

import pytest

from tests.soak import gauges
from tests.soak.gauges import MB, PLUGIN, WORKER, Gauge, Reading, Sample
from tests.soak.log_check import LogCheck


def faults_of(*lines: str, starts: int = 1) -> list[str]:
    """Returns the faults of a log with these lines."""
    check = LogCheck()
    for line in lines:
        check.feed(f"{line}\n".encode())
    check.finish(starts=starts)
    return check.faults


def test_a_whole_log_has_no_fault_however_it_is_cut() -> None:
    check = LogCheck()
    for byte in b"a 1 -\na 2 signal\na 3 end\n":
        check.feed(bytes([byte]))
    check.finish(starts=1)
    assert (check.faults, check.lines, check.signals) == ([], 3, 1)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["a 1 -", "a 3 end"], "line 3 comes after 1"),
        (["a 1 -", "a 1 -", "a 2 end"], "line 1 comes after 1"),
        (["a 2 -", "a 3 end"], "line 2 comes after 0"),
        (["a 1 -"], "no last line: the log ends with 1"),
        (["a 1 end", "a 2 -"], "line 2 comes after the end"),
        (["a 1", "a 1 end"], "no line of the task's: 'a 1'"),
        (["a 1 -", "b 1 end"], "2 copies of 1 starts"),
    ],
)
def test_a_log_with_a_fault_is_blamed_for_it(lines: list[str], fault: str) -> None:
    assert fault in faults_of(*lines)


def test_half_a_line_at_the_end_is_a_fault() -> None:
    check = LogCheck()
    check.feed(b"a 1 end\na 2")
    check.finish(starts=1)
    assert check.faults == ["half a line: b'a 2'"]


def test_a_copy_that_replaced_the_first_after_a_repeated_start_is_none() -> None:
    assert faults_of("a 1 -", "b 1 -", "b 2 end", starts=2) == []


def test_two_copies_that_write_by_turns_are_a_fault() -> None:
    assert "two copies write by turns: 'a 2 -'" in faults_of(
        "a 1 -", "b 1 -", "a 2 -", "b 2 end", starts=2
    )


def grown(kind: str, since: int = 6, step_s: float = 10.0, **more: float) -> list[str]:
    """Returns the faults of a process with so much more from the sample `since` of nine on."""
    samples = []
    for step in range(9):
        late = step >= since
        values = {"own": 10 * MB, "fds": 20, "threads": 10}
        values |= {name: values[name] + int(much * late) for name, much in more.items()}
        reading = Reading(pss=1, rss=1, **values)
        samples.append(Sample(at=step * step_s, processes={kind: {7: reading}}, zombies={}))
    gauge = Gauge(kind, samples)
    gauge.judge()
    return gauge.faults


def test_what_stays_or_shrinks_is_flat() -> None:
    assert grown(PLUGIN) == grown(WORKER) == []
    assert grown(PLUGIN, own=-MB, fds=-5, threads=-5) == []


def test_growth_is_a_fault() -> None:
    assert grown(PLUGIN, own=MB) == ["plugin: memory grew from 10.00 to 11.00 MB"]
    assert grown(WORKER, fds=3) == ["workers: fds grew from 20.0 to 23.0"]
    assert grown(WORKER, threads=1) == ["workers: threads grew from 10.0 to 11.0"]
    assert grown(PLUGIN, fds=50) == ["plugin: fds grew from 20.0 to 70.0"]


def test_pages_that_are_copied_once_are_no_growth() -> None:
    assert grown(WORKER, since=3, own=MB) == []
    assert grown(WORKER, since=6, own=MB) != []


def test_a_worker_may_do_things_for_the_first_time_at_the_end_of_a_short_window() -> None:
    assert grown(WORKER, own=0.5 * MB) != []
    assert grown(WORKER, step_s=2.0, own=0.5 * MB) == []
    assert grown(WORKER, step_s=2.0, own=MB) != []
    assert grown(PLUGIN, step_s=2.0, own=MB) != []


def test_only_processes_that_stay_are_compared() -> None:
    reading = Reading(pss=1, rss=1, own=1, fds=1, threads=1)
    samples = [
        Sample(at=step, processes={WORKER: {step: reading}}, zombies={}) for step in range(9)
    ]
    gauge = Gauge(WORKER, samples)
    gauge.judge()
    assert gauge.faults == ["workers: none was there all the time"]


def test_too_few_samples_are_a_fault() -> None:
    gauge = Gauge(PLUGIN, [])
    gauge.judge()
    assert gauge.faults == ["plugin: 0 samples are too few"]


def test_a_zombie_counts_when_it_is_seen_twice() -> None:
    def most(*pids: str) -> dict[str, int]:
        return gauges.zombies(
            Sample(at=0, processes={}, zombies={PLUGIN: seen.split()}) for seen in pids
        )

    assert most("", "7", "", "7") == {PLUGIN: 0}
    assert most("7", "8", "9") == {PLUGIN: 0}
    assert most("", "7", "8 7", "") == {PLUGIN: 1}
