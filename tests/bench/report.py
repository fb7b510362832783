"""The report of a bench as one HTML file: a table against limits, and plots. No outside request."""

from __future__ import annotations

import html
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from proto.release import RELEASE
from tests.bench.figures import Figure, Measured

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; background: #fff;
  max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
p.machine { color: #6b7280; margin-top: .2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #e5e7eb; }
th { font-weight: 600; color: #6b7280; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.note { color: #6b7280; }
td.bar { width: 9rem; }
.track { background: #e5e7eb; height: .5rem; border-radius: 3px; overflow: hidden; }
.used { background: #059669; height: 100%; }
.over .used { background: #dc2626; }
.mark { font-weight: 600; color: #059669; }
.over .mark, .failed .mark { color: #dc2626; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(460px, 1fr)); gap: 1rem;
  margin-top: 2rem; }
.plots svg { width: 100%; height: auto; }
"""


def machine() -> dict[str, str]:
    """Returns the facts of this machine and moment which a reader of figures needs."""
    memory_kb = next(
        line.split()[1]
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal:")
    )
    return {
        "release": RELEASE,
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cores": f"{os.cpu_count()} cores",
        "memory": f"{int(memory_kb) / 1024**2:.0f} GiB",
        "kernel": f"Linux {platform.release()}",
        "python": f"Python {platform.python_version()}",
    }


def page(facts: Mapping[str, str], rows: Sequence[Measured], plots: Iterable[str]) -> str:
    """Builds the HTML page.

    Args:
        facts: as of `machine`.
        rows: the results.
        plots: SVG elements, which go into the page as they are.
    """
    figures = [figure for row in rows for figure in row.figures]
    over = sum(not figure.holds for figure in figures)
    failed = sum(bool(row.failure) for row in rows)
    facts_text = " · ".join(value for key, value in facts.items() if key != "release")
    body = "".join(_rows(row) for row in rows)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>containerd-driver {html.escape(facts["release"])}: bench</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>containerd-driver {html.escape(facts["release"])}: bench</h1>
<p class="machine">{html.escape(facts_text)}</p>
<p>{len(figures)} figures, {over} over the limit, {failed} rows failed.
Compare figures of one run only: machines and minutes differ.</p>
<table>
<tr><th>figure</th><th>measured</th><th>limit</th><th></th><th></th><th>note</th></tr>
{body}</table>
<div class="plots">
{"".join(plots)}</div>
</body>
</html>
"""


def _rows(row: Measured) -> str:
    lines = [_line(figure) for figure in row.figures]
    if row.failure:
        lines.append(
            f'<tr class="failed"><td>{html.escape(row.row)}</td><td></td><td></td><td></td>'
            f'<td class="mark">FAILED</td><td class="note">{html.escape(row.failure)}</td></tr>\n'
        )
    return "".join(lines)


def _line(figure: Figure) -> str:
    kind, mark = ("ok", "ok") if figure.holds else ("over", "OVER")
    width = min(100.0, 100 * figure.used)
    unit = html.escape(figure.unit)
    return (
        f'<tr class="{kind}"><td>{html.escape(figure.name)}</td>'
        f'<td class="number">{figure.value:.2f} {unit}</td>'
        f'<td class="number">{figure.limit:g} {unit}</td>'
        f'<td class="bar"><div class="track"><div class="used" style="width: {width:.0f}%"></div>'
        f'</div></td><td class="mark">{mark}</td>'
        f'<td class="note">{html.escape(figure.note)}</td></tr>\n'
    )
