"""All tests in two halves: each test is in a half, and both halves report."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import halves

STORY = "import sys; from tests.halves import run; sys.exit(run({first!r}, {second!r}))"


def ends(word: str, status: int) -> list[str]:
    return [sys.executable, "-c", f"print({word!r}); raise SystemExit({status})"]


def test_what_is_not_in_the_first_half_is_in_the_second() -> None:
    first, second = halves.commands()
    assert first[3:] == [*halves.FIRST]
    assert second[3:] == [f"--ignore={place}" for place in halves.FIRST]
    assert all((halves.ROOT / place).is_dir() for place in halves.FIRST)


@pytest.mark.parametrize(("first", "second", "all_"), [(0, 0, 0), (1, 0, 1), (0, 2, 2), (3, 2, 3)])
def test_the_end_is_good_where_both_halves_end_well(first: int, second: int, all_: int) -> None:
    story = STORY.format(first=ends("one", first), second=ends("two", second))
    done = subprocess.run(
        [sys.executable, "-c", story], cwd=halves.ROOT, check=False, capture_output=True, text=True
    )
    assert done.stdout.split() == ["one", "two"]
    assert done.returncode == all_
