"""A job file as blocks with places, and edits of the file's text.

HCL and JSON give the same blocks, under the names of HCL. An edit replaces a part of the text: each
other byte of the file stays, with comments, formatting and expressions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

from proto.values import dataclass


class Unknown(str):
    """Source of an expression that only Nomad can evaluate."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Span:
    """Part of the text, from the index `start` to the index `end` without the latter."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An attribute, or a block.

    Attributes:
        name: the name in HCL.
        line: number of the first line.
        span: place of the whole entry.
        name_span: place of the name, in JSON with its quotes.
        value_span: place of the value or of the body.
        value: the value; `Unknown` in place of each expression.
        bodies: content of the block; in JSON of each block with the name.
    """

    name: str
    line: int
    span: Span
    name_span: Span
    value_span: Span
    value: Any = None
    bodies: tuple[Body, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """Content of a block.

    Attributes:
        label: the first label; empty for none, or for an expression.
        label_span: place of the first label with its quotes.
        line: number of the first line.
        span: place between the braces.
        entries: the attributes and blocks inside.
    """

    label: str = ""
    label_span: Span = field(default=Span(0, 0))
    line: int
    span: Span
    entries: tuple[Entry, ...]

    def entry(self, name: str) -> Entry | None:
        """Returns the first entry with a name; None for none."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def bodies(self, name: str) -> Iterator[Body]:
        """Yields the content of each block with a name."""
        for entry in self.entries:
            if entry.name == name:
                yield from entry.bodies

    def value(self, name: str) -> Any:
        """Returns the value of an attribute; None if absent."""
        entry = self.entry(name)
        return entry.value if entry else None

    def text(self, name: str) -> str:
        """Returns the text of an attribute; empty if absent, or of another type."""
        value = self.value(name)
        return value if isinstance(value, str) else ""

    def plain(self) -> dict[str, Any]:
        """Returns values by name, with a list of contents for each block."""
        values: dict[str, Any] = {}
        for entry in self.entries:
            if entry.bodies:
                values.setdefault(entry.name, []).extend(b.plain() for b in entry.bodies)
            else:
                values[entry.name] = entry.value
        return values


class Document:
    """A file and its edits; `HclDocument` and `JsonDocument` know the forms of the two languages.

    Attributes:
        text: the file.
        root: the blocks of the file: `job`, or the blocks of an agent's configuration.
    """

    def __init__(self, text: str, root: Body) -> None:
        self.text = text
        self.root = root
        self._edits: list[tuple[Span, str]] = []

    def edited(self) -> str:
        """Returns the text with all edits."""
        parts: list[str] = []
        at = 0
        for span, text in sorted(self._edits, key=lambda edit: (edit[0].start, edit[0].end)):
            parts += [self.text[at : span.start], text]
            at = span.end
        return "".join([*parts, self.text[at:]])

    def source(self, span: Span) -> str:
        """Returns a part of the text."""
        return self.text[span.start : span.end]

    def replace(self, span: Span, text: str) -> None:
        """Replaces a part of the text."""
        self._edits.append((span, text))

    def put(self, body: Body, entries: Mapping[str, Any]) -> None:
        """Adds entries at the begin of a block; replaces the value of an existing attribute.

        Args:
            body: the block.
            entries: by name in HCL, a string, a list of strings, or a mapping for a block.
        """
        added = dict(entries)
        for entry in body.entries:
            if entry.name in added and not entry.bodies:
                self.replace(entry.value_span, self._value(body, entry.name, added.pop(entry.name)))
        if added:
            self._insert(body, added)

    def _value(self, body: Body, name: str, value: Any) -> str:
        raise NotImplementedError

    def _insert(self, body: Body, entries: Mapping[str, Any]) -> None:
        raise NotImplementedError
