"""`./dev states`: draws the states of a task in ARCHITECTURE.md from the table of phases."""

from __future__ import annotations

import sys
from pathlib import Path

from actors.task.phases import Event, Phase, advance
from proto.errors import DriverError

DOCUMENT = Path(__file__).resolve().parents[1] / "ARCHITECTURE.md"
BEGIN = "<!-- begin: drawn by ./dev states -->\n"
END = "<!-- end: drawn by ./dev states -->\n"


def arrows() -> dict[tuple[Phase, Phase], list[Event]]:
    """Returns the events that lead from one phase to another or keep a phase as it is."""
    found: dict[tuple[Phase, Phase], list[Event]] = {}
    for phase in Phase:
        for event in Event:
            try:
                following = advance(phase, event)
            except DriverError:
                continue
            found.setdefault((phase, following), []).append(event)
    return found


def diagram() -> str:
    """Returns the state diagram in Mermaid's language, with the marker lines around."""
    lines = [
        "[*] --> starting: StartTask",
        "[*] --> recovering: RecoverTask",
        *(
            f"{one.name.lower()} --> {other.name.lower()}: {', '.join(e.name.lower() for e in by)}"
            for (one, other), by in arrows().items()
        ),
        "gone --> [*]",
    ]
    body = "\n".join(f"    {line}" for line in lines)
    return f"{BEGIN}```mermaid\nstateDiagram-v2\n{body}\n```\n{END}"


def drawn(text: str) -> str:
    """Returns a document with the part between the markers drawn again.

    Raises:
        ValueError: a marker is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the markers {BEGIN.strip()} and {END.strip()} are missing")
    return f"{before}{diagram()}{after}"


def main() -> int:
    """Draws the diagram in ARCHITECTURE.md; returns the exit status."""
    try:
        DOCUMENT.write_text(drawn(DOCUMENT.read_text()))
    except ValueError as error:
        sys.stderr.write(f"{DOCUMENT.name}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
