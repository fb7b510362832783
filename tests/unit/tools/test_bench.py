"""Figures, limits, the table and the command line of `./dev bench`."""

from __future__ import annotations

import io
import json

import pytest

from tests.bench import __main__ as bench
from tests.bench.figures import (
    Figure,
    Measured,
    Plot,
    PlotKind,
    percentile,
    ratio,
    samples,
    table,
)
from tests.bench.progress import Progress


def figure(value: float, limit: float, name: str = "start") -> Figure:
    """Returns a figure with a note."""
    return Figure(name=name, value=value, limit=limit, unit="x", note="noted")


def test_a_figure_holds_up_to_its_limit() -> None:
    assert figure(1.25, 1.25).holds
    assert not figure(1.2501, 1.25).holds
    assert figure(0, 0).holds
    assert not figure(0.01, 0).holds


def test_the_table_marks_figures_over_the_limit_and_failed_rows() -> None:
    rows = [
        Measured(row="starts", figures=[figure(0.5, 1.0), figure(3.0, 1.0, "stop")]),
        Measured(row="pull", failure="AssertionError: no registry"),
    ]
    assert table(rows).splitlines() == [
        "start       0.50 of   1.00 x            █████····· ok    noted",
        "stop        3.00 of   1.00 x            ████████████████████ OVER  noted",
        "pull    FAILED  AssertionError: no registry",
        "",
        "2 figures, 1 over the limit, 1 rows failed",
    ]
    assert not rows[0].holds
    assert not rows[1].holds
    assert Measured(figures=[figure(1, 1)]).holds


def test_results_are_the_same_after_a_way_through_json() -> None:
    plot = Plot(
        title="Start",
        kind=PlotKind.DISTRIBUTION,
        x="ms",
        y="%",
        series={"raw": samples([3.0, 1.0])},
    )
    row = Measured(row="starts", figures=[figure(1, 2)], plots=[plot])
    again = Measured.from_json(json.loads(json.dumps(row.as_json())))
    assert again.figures == row.figures
    assert again.plots[0].kind is PlotKind.DISTRIBUTION
    assert json.dumps(again.as_json()) == json.dumps(row.as_json())


def test_a_percentile_of_few_samples_is_near_the_greatest() -> None:
    assert percentile([7.0], 99) == 7.0
    assert percentile([float(value) for value in range(101)], 99) == 99.0
    assert 2.9 < percentile([1.0, 2.0, 3.0], 99) < 3.0


def test_a_ratio_compares_medians_and_says_both() -> None:
    found = ratio("start", [2.0, 9.0, 3.0], [2.0, 2.0, 1.0], 1.25, "raw")
    assert (found.value, found.note) == (1.5, "3.0 ms against 2.0 ms raw")
    assert not found.holds


class Terminal(io.StringIO):
    """A text stream in the role of a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_in_a_log_is_a_line_for_the_begin_and_one_for_the_end() -> None:
    log = io.StringIO()
    progress = Progress(2, log)
    progress.begin("starts")
    progress.step(1, 100)
    progress.end("ok")
    progress.begin("pull")
    assert log.getvalue().splitlines() == [
        "[1/2] starts",
        "[1/2] starts: ok, 0 s",
        "[2/2] pull",
    ]


def test_progress_on_a_terminal_changes_one_line() -> None:
    terminal = Terminal()
    progress = Progress(1, terminal)
    progress.begin("starts")
    progress.step(1, 100, "warm")
    progress.end("OVER")
    *shown, last = terminal.getvalue().split("\r\x1b[K")
    assert shown == ["", "[1/1] starts", "[1/1] starts 1 of 100 warm"]
    assert last == "[1/1] starts: OVER, 0 s\n"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["nothing"], "no row 'nothing'; there are: handshake, starts, "),
        (["--rounds", "0"], "--rounds 0: more than 0 is needed"),
        (["--tasks", "-1"], "--tasks -1: more than 0 is needed"),
        (["--at-once", "50,0"], "50,0: numbers of 1 or more are needed"),
        (["--at-once", "x"], "x: numbers of 1 or more are needed, as in 50,200"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_before_anything_runs(
    words: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.parse(words)
    assert ended.value.code == 2
    assert error in capsys.readouterr().err


def test_rows_and_numbers_come_from_the_command_line() -> None:
    found = bench.parse(["pull", "starts", "--at-once", "5,12", "--rounds", "3"])
    assert (found.rows, found.at_once, found.rounds) == (["pull", "starts"], (5, 12), 3)
    assert bench.parse([]).rows == []


def test_the_help_names_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.parse(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n  {row} " in text for row in bench.ROOMS)
