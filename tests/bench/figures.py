"""Results of a measurement: figures beside their limits, and the data of plots."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

_BAR = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure beside the limit, both in `unit`."""

    name: str
    value: float
    limit: float
    unit: str
    note: str = ""

    @property
    def holds(self) -> bool:
        """Returns whether the figure is within the limit."""
        return self.value <= self.limit

    @property
    def used(self) -> float:
        """The used part of the limit; of a limit of 0, 1 for any other value."""
        return self.value / self.limit if self.limit else float(self.value > 0)


class PlotKind(StrEnum):
    """Form of a plot."""

    DISTRIBUTION = "distribution"
    """Shares of samples up to a value; `points` has (sample's number, value)."""
    LINES = "lines"
    BARS = "bars"
    """A bar for each series, as high as the median of the values; `points` as of a distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Data of one plot: for each name in `series`, the points (x, y)."""

    title: str
    kind: PlotKind
    x: str
    y: str
    series: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Results of one row of the bench; `failure` is the reason of a row without results."""

    row: str = ""
    figures: Sequence[Figure] = ()
    plots: Sequence[Plot] = field(default=())
    failure: str = ""

    @property
    def holds(self) -> bool:
        """Returns whether the row was measured and all figures are within their limits."""
        return not self.failure and all(figure.holds for figure in self.figures)

    def as_json(self) -> dict[str, Any]:
        """Returns the results for programs."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Builds results from the output of `as_json`.

        Raises:
            KeyError: the data lacks a key.
            TypeError: the data has an unknown key.
        """
        return cls(
            row=data["row"],
            figures=[Figure(**figure) for figure in data["figures"]],
            plots=[Plot(**{**plot, "kind": PlotKind(plot["kind"])}) for plot in data["plots"]],
            failure=data["failure"],
        )


def samples(values: Iterable[float]) -> list[tuple[float, float]]:
    """Returns a plot's points for samples without an x of their own."""
    return [(float(number), value) for number, value in enumerate(values)]


def percentile(values: Sequence[float], percent: int) -> float:
    """Returns the value that `percent` of 100 samples do not exceed.

    Between two samples the value is interpolated; few samples give a value near the greatest.
    """
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def ratio(
    name: str, ours: Sequence[float], others: Sequence[float], limit: float, peer: str
) -> Figure:
    """Returns the figure of two medians in milliseconds, ours divided by the peer's."""
    left, right = statistics.median(ours), statistics.median(others)
    note = f"{left:.1f} ms against {right:.1f} ms {peer}"
    return Figure(name=name, value=left / right, limit=limit, unit="x", note=note)


def table(rows: Iterable[Measured]) -> str:
    """Formats all figures in columns, with a bar for the used part of each limit."""
    rows = list(rows)
    names = [figure.name for row in rows for figure in row.figures]
    width = max((len(name) for name in (*names, *(row.row for row in rows))), default=0)
    lines = []
    for row in rows:
        lines += [_line(figure, width) for figure in row.figures]
        if row.failure:
            lines.append(f"{row.row:{width}}  FAILED  {row.failure}")
    over = sum(not figure.holds for row in rows for figure in row.figures)
    failed = sum(bool(row.failure) for row in rows)
    lines.append(f"\n{len(names)} figures, {over} over the limit, {failed} rows failed")
    return "\n".join(lines) + "\n"


def _line(figure: Figure, width: int) -> str:
    bar = ("█" * min(2 * _BAR, round(figure.used * _BAR))).ljust(_BAR, "·")
    mark = "ok  " if figure.holds else "OVER"
    text = f"{figure.value:8.2f} of {figure.limit:6.2f} {figure.unit:12} {bar} {mark}"
    return f"{figure.name:{width}}  {text}  {figure.note}".rstrip()
