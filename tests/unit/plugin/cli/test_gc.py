"""The output of `containerd-driver gc`."""

from __future__ import annotations

from typing import Any

from actors.orphans.reconciler import Outcome
from plugin.cli.gc import table
from plugin.host.run.sweep import Row


def row(**more: Any) -> Row:
    fields = {"kind": "lease", "name": "x", "since": 0.0, "outcome": Outcome.KEPT, "why": "y"}
    return Row(**{**fields, **more})


def test_columns_are_aligned_and_what_failed_stands_below() -> None:
    rows = [
        row(kind="container", name="t-1", outcome=Outcome.REMOVED, why="no task of Nomad owns it"),
        row(kind="state directory", outcome=Outcome.FAILED, error="a disk full of sorrow"),
    ]
    lines = table(rows, colours=False).splitlines()
    assert lines[0].split() == ["KIND", "NAME", "SINCE", "WHAT", "WHY"]
    for column, word in (("NAME", "t-1"), ("WHAT", "removed"), ("WHY", "no task of Nomad")):
        assert lines[1].index(word) == lines[0].index(column)
    assert lines[2].index("not removed") == lines[0].index("WHAT")
    assert lines[3].strip() == "→ a disk full of sorrow"
    assert "\033" not in "".join(lines)
    assert "\033[32mremoved" in table(rows, colours=True)


def test_what_is_too_wide_for_the_terminal_is_a_paragraph() -> None:
    rows = [
        row(kind="container", name="t-1", outcome=Outcome.REMOVED, why="no task of Nomad owns it"),
        row(outcome=Outcome.FAILED, error="a disk full of sorrow and more"),
    ]
    wide = table(rows, width=200)
    assert wide == table(rows)
    lines = table(rows, width=30).splitlines()
    assert lines[:2] == ["container t-1", "  removed: no task of Nomad"]
    assert lines[-2:] == ["  → a disk full of sorrow and", "    more"]
    assert max(map(len, lines)) <= 30
    assert "\033[32mremoved\033[0m: no" in table(rows, colours=True, width=30)


def test_nothing_is_a_sentence() -> None:
    assert table([], colours=True) == "nothing is left over\n"
