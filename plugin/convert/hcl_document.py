"""A job file in HCL, with places from python-hcl2's tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from plugin.convert.document import Body, Document, Entry, Span, Unknown
from plugin.host.job.hcl_job import parsed
from plugin.host.job.hcl_text import Masked, unmask

_LITERALS = {"true": True, "false": False, "null": None}
_SHORT_LINE = 100


def read(name: str, text: str) -> HclDocument:
    """Reads a file.

    Raises:
        DriverError: code INVALID, the text is not HCL; code UNSUPPORTED, python-hcl2 is missing.
    """
    tree, masked = parsed(name, text, "parses_to_tree")
    return HclDocument(text, _Reader(text, masked).body(tree.children[0], Span(0, len(text))))


class _Reader:
    """Converts python-hcl2's tree into blocks; the tree has places in the masked text."""

    def __init__(self, text: str, masked: Masked) -> None:
        self._text = text
        self._masked = masked

    def body(self, tree: Any, span: Span, **label: Any) -> Body:
        """Returns the content of a block from a tree `body`."""
        entries = [
            self._attribute(child) if child.data == "attribute" else self._block(child)
            for child in tree.children
            if child.data in {"attribute", "block"}
        ]
        return Body(line=self._line(span.start), span=span, entries=tuple(entries), **label)

    def _attribute(self, tree: Any) -> Entry:
        name, _, expression = tree.children
        value = self._span(expression)
        return self._entry(tree, str(name.children[0]), value, value=self._value(expression))

    def _block(self, tree: Any) -> Entry:
        """Returns a block; `dynamic "NAME" { content { … } }` becomes a block with its name."""
        *words, _, content, closing = [
            c for c in tree.children if _kind(c) != "new_line_or_comment"
        ]
        start = self._masked.place(tree.children[-3].end_pos - 1) + 1
        span = Span(start, self._masked.place(closing.start_pos))
        label: dict[str, Any] = {}
        if len(words) > 1:
            label = {"label": self._label(words[1]), "label_span": self._span(words[1])}
        body = self.body(content, span, **label)
        name = str(words[0].children[0])
        if name == "dynamic" and body.label and (inner := next(body.bodies("content"), None)):
            name, body = body.label, inner
        return self._entry(tree, name, span, bodies=(body,))

    def _entry(self, tree: Any, name: str, value_span: Span, **content: Any) -> Entry:
        span = self._span(tree)
        return Entry(
            name=name,
            line=self._line(span.start),
            span=span,
            name_span=self._span(tree.children[0]),
            value_span=value_span,
            **content,
        )

    def _label(self, tree: Any) -> str:
        value = self._string(tree) if tree.data == "string" else str(tree.children[0])
        return "" if isinstance(value, Unknown) else value

    def _value(self, tree: Any) -> Any:
        """Returns the value of a literal; `Unknown` for each other expression."""
        match tree.data:
            case "expr_term" if len(tree.children) == 1:
                return self._value(tree.children[0])
            case "string":
                return self._string(tree)
            case "literal_value":
                return _LITERALS[str(tree.children[0])]
            case "int_lit":
                return int(tree.children[0])
            case "float_lit":
                return float(tree.children[0])
            case "tuple":
                return [self._value(child) for child in _expressions(tree)]
            case "object":
                return dict(self._pair(child) for child in _expressions(tree))
            case "unary_op":
                number = self._value(tree.children[1])
                if str(tree.children[0]) == "-" and isinstance(number, int | float):
                    return -number
        return Unknown(self._text[slice(*self._bounds(tree))])

    def _pair(self, tree: Any) -> tuple[str, Any]:
        key, _, expression = tree.children
        term = key.children[0]
        while _kind(term) == "expr_term" and len(term.children) == 1:
            term = term.children[0]
        # A key without quotes is a word, not a reference.
        word = _kind(term) == "identifier"
        name = str(term.children[0]) if word else str(self._value(term))
        return name, self._value(expression)

    def _string(self, tree: Any) -> str:
        parts = [part.children[0] for part in tree.children if _kind(part) == "string_part"]
        if any(_kind(part) == "tree" or not isinstance(part, str) for part in parts):
            return Unknown(self._text[slice(*self._bounds(tree))])
        return unmask("".join(re.sub(r"([$%])\1\{", r"\1{", str(part)) for part in parts))

    def _bounds(self, tree: Any) -> tuple[int, int]:
        span = self._span(tree)
        return span.start, span.end

    def _span(self, tree: Any) -> Span:
        meta = getattr(tree, "meta", tree)
        start, end = meta.start_pos, meta.end_pos
        # An expression's place may have the newline that follows.
        end -= len(self._masked.text[start:end]) - len(self._masked.text[start:end].rstrip())
        return Span(self._masked.place(start), self._masked.place(end - 1) + 1)

    def _line(self, place: int) -> int:
        return self._text.count("\n", 0, place) + 1


def _kind(node: Any) -> str:
    return str(getattr(node, "data", "token"))


def _expressions(tree: Any) -> Iterator[Any]:
    """Yields the parts of a list or an object, without brackets, commas and newlines."""
    for child in tree.children:
        if _kind(child) not in {"token", "new_line_or_comment"}:
            yield child


class HclDocument(Document):
    """Edits of HCL: entries are lines with the indentation of their neighbours."""

    def _value(self, body: Body, name: str, value: Any) -> str:
        del body, name
        return _literal(value)

    def _insert(self, body: Body, entries: Mapping[str, Any]) -> None:
        outer = _indentation(self.text[: body.span.start])
        first = re.match(r"[ \t]*(?:(?:#|//)[^\n]*)?(\r?\n)", self.source(body.span))
        if first:
            margin = next((self._margin(other) for other in body.entries), None) or f"{outer}  "
            block = any(isinstance(value, dict) for value in entries.values())
            gap = first[1] if block and body.entries else ""
            place = body.span.start + first.end()
            added = "".join(self._lines(entries, margin, first[1]))
            self.replace(Span(place, place), f"{added}{gap}")
            return
        # The block stands in one line.
        inside = self.source(body.span)
        lines = "".join(["\n", *self._lines(entries, f"{outer}  ", "\n")])
        if not inside.strip():
            self.replace(body.span, f"{lines}{outer}")
            return
        start = body.span.start + len(inside) - len(inside.lstrip())
        end = body.span.start + len(inside.rstrip())
        self.replace(Span(body.span.start, start), f"{lines}{outer}  ")
        self.replace(Span(end, body.span.end), f"\n{outer}")

    def _lines(self, entries: Mapping[str, Any], margin: str, newline: str) -> Iterator[str]:
        for name, value in entries.items():
            for text in _lines(name, value, margin):
                yield text.replace("\n", newline)

    def _margin(self, entry: Entry) -> str | None:
        """Returns the blanks before an entry; None if other text stands there."""
        start = self.text.rfind("\n", 0, entry.span.start) + 1
        margin = self.text[start : entry.span.start]
        return None if margin.strip() else margin


def _indentation(before: str) -> str:
    """Returns the indentation of the last line of a text."""
    line = before[before.rfind("\n") + 1 :]
    return line[: len(line) - len(line.lstrip())]


def _lines(name: str, value: Any, margin: str) -> Iterator[str]:
    """Yields the lines of an attribute or of a block."""
    if not isinstance(value, dict):
        line = f"{margin}{name} = {_literal(value)}\n"
        if len(line) > _SHORT_LINE and isinstance(value, list):
            items = "".join(f"{margin}  {_literal(item)},\n" for item in value)
            line = f"{margin}{name} = [\n{items}{margin}]\n"
        yield line
        return
    yield f"{margin}{name} {{\n"
    for key, item in value.items():
        if isinstance(item, dict):
            yield "\n"
        yield from _lines(key, item, f"{margin}  ")
    yield f"{margin}}}\n"


def _literal(value: Any) -> str:
    """Returns a value in HCL; references such as `${meta.x}` stay references."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(value)
