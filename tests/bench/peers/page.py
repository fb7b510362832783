"""The tables of the comparison in README.md and docs/performance.md, between two markers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.bench.peers.agent import COLUMNS

BEGIN, END = "<!-- peers: ./dev bench --peers -->", "<!-- /peers -->"
NOT_MEASURED = "–"

Cells = Mapping[str, Mapping[str, str]]
"""Texts of cells by the first cell of the row and by column."""


def parse(page: str) -> tuple[list[str], dict[str, list[str]]]:
    """Returns the header and the rows, by first cell, of the table between the markers.

    Raises:
        ValueError: a marker is missing, or a row has another number of cells than the header.
    """
    _, section, _ = _split(page)
    lines = [_cells(line) for line in section.splitlines() if line.startswith("|")]
    if len(lines) < 2:
        raise ValueError(f"no table follows {BEGIN}")
    header, _, *rows = lines
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"{row[0]!r} has {len(row)} cells, the header {len(header)}")
    return header, {row[0]: row[1:] for row in rows}


def filled(page: str, cells: Cells, caption: str | None = None) -> str:
    """Returns the page with new cells in the table between the markers.

    In a row of `cells`, the columns of the comparison get their text, or a dash without a text: an
    earlier run's figure never stands beside figures of this run. Other columns and rows stay.

    Args:
        page: text of the page.
        cells: the new cells; rows that the page does not have are left out.
        caption: a new paragraph above the table; None keeps the present text.

    Raises:
        ValueError: as `parse`.
    """
    header, rows = parse(page)
    before, section, after = _split(page)
    text = section.partition("\n|")[0].strip() if caption is None else caption
    lines = [header, ["---"] * len(header)]
    for name, old in rows.items():
        new = cells.get(name)
        row = [
            new.get(column, NOT_MEASURED) if new is not None and column in COLUMNS else value
            for column, value in zip(header[1:], old, strict=True)
        ]
        lines.append([name, *row])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    content = f"{text}\n\n{table}" if text else table
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def formatted(cells: Cells, columns: Iterable[str]) -> str:
    """Formats the cells as a table for a terminal."""
    columns = list(columns)
    lines = [["", *columns]]
    lines += [
        [name, *(row.get(column, NOT_MEASURED) for column in columns)]
        for name, row in cells.items()
    ]
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() + "\n"
        for line in lines
    )


def _split(page: str) -> tuple[str, str, str]:
    before, begin, rest = page.partition(BEGIN)
    section, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no table between {BEGIN} and {END}")
    return before, section, after


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
