"""Progress of a measurement on stderr: on a terminal a changing line, in a log some lines."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_LOG_EVERY_S = 10
_ERASE = "\r\x1b[K"


class Progress:
    """Tells which row is measured and which part is done.

    Args:
        rows: number of rows.
        stream: destination; a terminal gets a single, changing line.
    """

    def __init__(self, rows: int, stream: TextIO = sys.stderr) -> None:
        self._rows = rows
        self._stream = stream
        self._terminal = stream.isatty()
        self._number = 0
        self._row = ""
        self._begun = self._told = time.monotonic()

    def begin(self, row: str) -> None:
        """Begins the next row."""
        self._number += 1
        self._row = row
        self._begun = time.monotonic()
        self._show("")

    def step(self, done: int, of: int, text: str = "") -> None:
        """Shows the number of done steps; a log gets a line every ten seconds."""
        if self._terminal or time.monotonic() - self._told >= _LOG_EVERY_S:
            self._show(f" {done} of {of}{f' {text}' if text else ''}")

    def end(self, result: str) -> None:
        """Ends the row and leaves a line with the result."""
        erase = _ERASE if self._terminal else ""
        spent = time.monotonic() - self._begun
        self._stream.write(f"{erase}{self._head()}: {result}, {spent:.0f} s\n")
        self._stream.flush()

    def _head(self) -> str:
        return f"[{self._number}/{self._rows}] {self._row}"

    def _show(self, text: str) -> None:
        self._told = time.monotonic()
        begin, end = (_ERASE, "") if self._terminal else ("", "\n")
        self._stream.write(f"{begin}{self._head()}{text}{end}")
        self._stream.flush()
