"""The table of `./dev matrix`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import matrix

REPORT = """\
<testsuites><testsuite>
<testcase classname="a" name="good"/>
<testcase classname="a" name="not here"><skipped/></testcase>
<testcase classname="a" name="bad"><failure/></testcase>
<testcase classname="a" name="bad"><error/></testcase>
<testcase classname="a" name="leaves something"/>
<testcase classname="a" name="leaves something"><error/></testcase>
</testsuite></testsuites>
"""


def test_a_test_counts_once_by_the_worst_that_is_said_of_it(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    outcome = matrix.Outcome(version="1.4", release="1.4.13~ds1", seconds=90)
    outcome.add(report)
    assert (outcome.passed, outcome.skipped) == (1, 1)
    assert outcome.failed == ["a::bad", "a::leaves something"]
    assert matrix.table([outcome]).splitlines() == [
        "containerd  release     passed  failed  skipped  minutes",
        "1.4         1.4.13~ds1  1       2       1        1.5",
        "failed on 1.4: a::bad",
        "failed on 1.4: a::leaves something",
    ]
    outcome.add(report)
    assert (outcome.passed, outcome.skipped, len(outcome.failed)) == (2, 2, 4)


def test_an_unknown_version_ends_the_command_before_anything_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert matrix.main(["1.4", "0.9"]) == 2
    assert (
        capsys.readouterr().err
        == "no containerd '0.9'; there are: 1.4, 1.6, 1.7, 2.1, 2.3, 2.4, arm64\n"
    )
