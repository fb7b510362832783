"""Findings of a conversion: each change, each note, and each part that was not carried over."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from proto.values import dataclass


class Kind(StrEnum):
    """Kind of a finding."""

    CHANGED = "changed"
    NOTE = "note"
    LOST = "not carried over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A statement about a part of the file.

    Attributes:
        kind: the kind.
        place: block of the part, for example `task "web"`.
        option: name of the option; empty for the block itself.
        line: number of the line in the file before the conversion.
        text: the statement.
    """

    kind: Kind
    place: str
    option: str
    line: int
    text: str

    def __str__(self) -> str:
        """Returns the finding as a line for people."""
        option = f", option {self.option}" if self.option else ""
        return f"{self.kind}: {self.place}{option}, line {self.line}: {self.text}"


def report(name: str, findings: Sequence[Finding]) -> list[str]:
    """Returns the report on a file for people: a line for each finding, and the sums.

    Args:
        name: name of the file.
        findings: the findings, in the order of the file.
    """
    counts = {kind: sum(finding.kind is kind for finding in findings) for kind in Kind}
    notes = Kind.NOTE if counts[Kind.NOTE] == 1 else f"{Kind.NOTE}s"
    sums = f"{counts[Kind.CHANGED]} {Kind.CHANGED}, {counts[Kind.NOTE]} {notes}"
    return [*map(str, findings), f"{name}: {sums}, {counts[Kind.LOST]} {Kind.LOST}"]
