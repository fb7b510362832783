"""A conversion of each job in docs/migrating.md gives the report and the job of the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from plugin.convert.findings import report
from plugin.convert.job_file import converted

PAGE = Path(__file__).resolve().parents[4] / "docs" / "migrating.md"
FENCE = r".*?```{}\n(.*?)```"
JOBS = re.findall(
    rf"<!-- convert (\S+) -->{FENCE.format('nomad')}{FENCE.format('text')}"
    rf"{FENCE.format('(?:hcl|nomad)')}",
    PAGE.read_text(),
    re.DOTALL,
)


@pytest.mark.parametrize(("name", "before", "said", "after"), JOBS, ids=[job[0] for job in JOBS])
def test_a_job_of_the_page_becomes_the_job_below(
    name: str, before: str, said: str, after: str
) -> None:
    text, findings = converted(name, before)
    assert text == after
    assert report(name, findings) == said.splitlines()


def test_the_page_has_a_job_of_each_driver() -> None:
    assert [re.findall(r'driver = "(\w+)"', job[1])[0] for job in JOBS] == ["docker", "podman"]
