"""The HTML report of `./dev bench`: figures, limits, plots, and no outside request."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench import report
from tests.bench.figures import Figure, Measured, Plot, PlotKind, samples

FACTS = {"release": "1.0", "cores": "2 cores", "kernel": "Linux <6>"}
ROWS = [
    Measured(
        row="starts",
        figures=[
            Figure(name="start & stop", value=1.5, limit=1.12, unit="x", note="<noted>"),
            Figure(name="idle", value=0, limit=0, unit="% of a core"),
        ],
    ),
    Measured(row="pull", failure="DriverError: no registry at <host>"),
]
PLOTS = [
    Plot(
        title="Start",
        kind=PlotKind.DISTRIBUTION,
        x="ms",
        y="% of the starts",
        series={"raw calls": samples([50.0, 60.0, 55.0]), "this driver": samples([70.0])},
    ),
    Plot(
        title="Memory",
        kind=PlotKind.LINES,
        x="tasks",
        y="MB PSS",
        series={"plugin": [(10.0, 36.0), (50.0, 39.0)]},
    ),
    Plot(
        title="Pull",
        kind=PlotKind.BARS,
        x="",
        y="ms",
        series={"ctr image pull": samples([2700.0, 2800.0, 2712.4]), "this driver": samples([9.5])},
    ),
]


def test_the_page_has_each_figure_beside_its_limit_and_every_failure() -> None:
    page = report.page(FACTS, ROWS, [])
    over, holds, failed = re.findall(r"<tr class=.*", page)
    assert 'class="over"' in over
    assert "start &amp; stop" in over
    assert ">1.50 x<" in over
    assert ">1.12 x<" in over
    assert ">OVER<" in over
    assert "&lt;noted&gt;" in over
    assert "width: 100%" in over
    assert ">ok<" in holds
    assert "width: 0%" in holds
    assert "FAILED" in failed
    assert "DriverError: no registry at &lt;host&gt;" in failed
    assert "2 figures, 1 over the limit, 1 rows failed" in page
    assert "2 cores · Linux &lt;6&gt;" in page


def outside(page: str) -> list[str]:
    """Returns the parts of a page that would make a browser load more than the page."""
    loads = r"<script|<link|<img|<iframe|@import|url\((?!#)|src=|href=\"(?!#)[^\"]*"
    return re.findall(loads, page)


def test_the_page_loads_nothing() -> None:
    assert outside(report.page(report.machine(), ROWS, ["<svg></svg>"])) == []
    assert outside('<a href="https://example.com">') != []


def test_the_machine_is_described() -> None:
    facts = report.machine()
    assert re.fullmatch(r"\d+ cores", facts["cores"])
    assert re.fullmatch(r"\d+ GiB", facts["memory"])


def test_plots_have_their_series_as_text_and_load_nothing() -> None:
    plots = pytest.importorskip("tests.bench.plots", exc_type=ImportError)
    drawn = [plots.svg(plot) for plot in PLOTS]
    for text, plot in zip(drawn, PLOTS, strict=True):
        assert text.startswith("<svg ")
        assert text.rstrip().endswith("</svg>")
        assert f">{plot.title}<" in text
        assert all(name in text for name in plot.series)
        assert outside(text) == []
        assert len(text) < 100_000
    assert "raw calls (median 55)" in drawn[0]
    assert "2,712 ms" in drawn[2]
    assert "9.5 ms" in drawn[2]


def test_results_of_a_file_are_shown_without_a_measurement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "results.json"
    saved.write_text(json.dumps(bench.as_json(FACTS, ROWS)))
    assert bench.main(["--from", str(saved)]) == 1
    assert "pull          FAILED  DriverError: no registry at <host>" in capsys.readouterr().out
    assert bench.main(["--from", str(saved), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == json.loads(saved.read_text())


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("no json", "--from FILE: no results of ./dev bench --json: Expecting value"),
        ('{"rows": [{}]}', "--from FILE: no results of ./dev bench --json: 'machine'"),
        (None, "--from FILE: No such file or directory"),
    ],
)
def test_a_file_without_results_is_refused(
    text: str | None, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "results.json"
    if text is not None:
        saved.write_text(text)
    with pytest.raises(SystemExit) as ended:
        bench.main(["--from", str(saved)])
    assert ended.value.code == 2
    assert error.replace("FILE", str(saved)) in capsys.readouterr().err


def test_a_report_in_an_absent_folder_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(["--html", str(tmp_path / "absent" / "report.html")])
    assert ended.value.code == 2
    assert f"{tmp_path}/absent is no directory that can be written" in capsys.readouterr().err
