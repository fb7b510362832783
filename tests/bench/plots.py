"""Plots of the bench as SVG, drawn by matplotlib of the dependency group `bench`."""

from __future__ import annotations

import io
import statistics
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench.figures import Plot, PlotKind

_INCHES = (6.4, 3.6)
_COLORS = ["#6b7280", "#2563eb", "#d97706", "#059669"]
_SETTINGS: Any = {
    # Text stays text: a reader can search for it, and the file is small.
    "svg.fonttype": "none",
    "svg.hashsalt": "bench",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.prop_cycle": f"cycler('color', {_COLORS})",
}


def svg(plot: Plot) -> str:
    """Draws a plot.

    Returns:
        An `<svg>` element with sizes that follow the page's width, without an XML head.
    """
    with mpl.rc_context(_SETTINGS):
        # A Figure without pyplot: no window system, no global state.
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.add_subplot()
        {
            PlotKind.DISTRIBUTION: _distribution,
            PlotKind.LINES: _lines,
            PlotKind.BARS: _bars,
        }[plot.kind](axes, plot)
        axes.set_title(plot.title, loc="left", fontweight="bold")
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def shown(value: float) -> str:
    """Returns a number in three digits, or in whole numbers from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _distribution(axes: Axes, plot: Plot) -> None:
    """Draws the share of samples up to each value, one step line for each series."""
    for name, points in plot.series.items():
        values = sorted(value for _, value in points)
        shares = [100 * (number + 1) / len(values) for number in range(len(values))]
        label = f"{name} (median {shown(statistics.median(values))})"
        axes.step([values[0], *values], [0, *shares], where="post", label=label)
    axes.set_ylim(0, 102)
    axes.set_xlim(left=0)
    _describe(axes, plot)


def _lines(axes: Axes, plot: Plot) -> None:
    for name, points in plot.series.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    _describe(axes, plot)


def _describe(axes: Axes, plot: Plot) -> None:
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
    # Below the axes the legend hides no line.
    axes.figure.legend(loc="outside lower left", ncols=2, frameon=False)


def _bars(axes: Axes, plot: Plot) -> None:
    """Draws the median of each series with the least and the greatest value."""
    names = list(plot.series)
    values = [[value for _, value in plot.series[name]] for name in names]
    medians = [statistics.median(each) for each in values]
    spread = [
        [median - min(each) for median, each in zip(medians, values, strict=True)],
        [max(each) - median for median, each in zip(medians, values, strict=True)],
    ]
    bars = axes.barh(
        names, medians, xerr=spread, capsize=4, color=_COLORS[: len(names)], height=0.5
    )
    axes.bar_label(bars, [f"{shown(median)} {plot.y}" for median in medians], padding=6)
    axes.set_xlabel(plot.y)
    axes.invert_yaxis()
    axes.margins(x=0.2)
