"""A job in Nomad's JSON, with places, under the names of HCL.

Python's `json` gives no places, so the module walks the text, which `json` has accepted before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from plugin.convert.document import Body, Document, Entry, Span
from plugin.host.job.json_job import parse_json
from plugin.host.job.text import too_deep

_NAMES = {
    "Job": "job",
    "TaskGroups": "group",
    "Tasks": "task",
    "Driver": "driver",
    "Config": "config",
    "Networks": "network",
    "Mode": "mode",
    "Services": "service",
    "Connect": "connect",
    "SidecarService": "sidecar_service",
    "SidecarTask": "sidecar_task",
    "Gateway": "gateway",
    "Constraints": "constraint",
    "Affinities": "affinity",
    "Spreads": "spread",
    "LTarget": "attribute",
    "Attribute": "attribute",
    "ReservedPorts": "port",
    "DynamicPorts": "port",
}
_API = {hcl: api for api, hcl in _NAMES.items() if hcl not in {"attribute", "port"}}
_LABELS = {"Name", "Label"}
_BLANKS = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def read(name: str, text: str) -> JsonDocument:
    """Reads a file.

    Raises:
        DriverError: code INVALID, the text is not a job in JSON.
    """
    parse_json(name, text)
    try:
        whole = _Reader(text).entry("", 0, Span(0, 0), raw=False)
    except RecursionError:
        raise too_deep(name) from None
    (root,) = whole.bodies
    if root.entry("job") is None:
        inner = Entry(
            name="job", line=whole.line, span=whole.span, name_span=Span(0, 0),
            value_span=whole.value_span, bodies=(root,),
        )  # fmt: skip
        root = Body(line=1, span=root.span, entries=(inner,))
    return JsonDocument(text, root)


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text

    def entry(self, name: str, at: int, name_span: Span, *, raw: bool) -> Entry:
        """Returns the entry whose value begins at `at` or after blanks.

        Args:
            name: name of the entry in the file.
            at: place after the name and its colon.
            name_span: place of the name.
            raw: True below a task's config, whose names are a driver's.
        """
        start = self._skip(at)
        value, bodies, end = self._value(start, raw=raw or name in {"Config", "Meta", "Env"})
        return Entry(
            name=name if raw else _NAMES.get(name, name),
            line=self._text.count("\n", 0, name_span.start) + 1,
            span=Span(name_span.start, end),
            name_span=name_span,
            value_span=Span(start, end),
            value=value,
            bodies=tuple(bodies),
        )

    def _value(self, at: int, *, raw: bool) -> tuple[Any, list[Body], int]:
        """Returns a value, its objects as blocks, and the place behind the value."""
        if self._text[at] == "{":
            body, end = self._object(at, raw=raw)
            return body.plain() if raw else None, [body], end
        if self._text[at] == "[":
            return self._list(at, raw=raw)
        value, end = _DECODER.raw_decode(self._text, at)
        return value, [], end

    def _object(self, start: int, *, raw: bool) -> tuple[Body, int]:
        entries: list[Entry] = []
        at = self._skip(start + 1)
        while self._text[at] != "}":
            name, end = _DECODER.raw_decode(self._text, at)
            colon = self._skip(end)
            entries.append(self.entry(name, colon + 1, Span(at, end), raw=raw))
            at = self._next(entries[-1].span.end)
        named = next((entry for entry in entries if entry.name in _LABELS and not raw), None)
        body = Body(
            label=str(named.value) if named else "",
            line=self._text.count("\n", 0, start) + 1,
            span=Span(start + 1, at),
            entries=tuple(entries),
        )
        return body, at + 1

    def _list(self, start: int, *, raw: bool) -> tuple[Any, list[Body], int]:
        values: list[Any] = []
        bodies: list[Body] = []
        at = self._skip(start + 1)
        while self._text[at] != "]":
            value, inner, end = self._value(at, raw=raw)
            values.append(value)
            bodies += inner
            at = self._next(end)
        # A list is either blocks or plain values.
        return values, bodies if len(bodies) == len(values) else [], at + 1

    def _next(self, end: int) -> int:
        """Returns the place of the next item, or of the closing bracket."""
        at = self._skip(end)
        return self._skip(at + 1) if self._text[at] == "," else at

    def _skip(self, at: int) -> int:
        blanks = _BLANKS.match(self._text, at)
        return blanks.end() if blanks else at


class JsonDocument(Document):
    """Edits of JSON, under the names of Nomad's API."""

    def _value(self, body: Body, name: str, value: Any) -> str:
        gap = self._gap(body)
        return _text(name, value, gap if "\n" in gap else "")

    def _insert(self, body: Body, entries: Mapping[str, Any]) -> None:
        gap = self._gap(body)
        texts = [
            f"{gap}{json.dumps(_api(name))}: {self._value(body, name, value)}"
            for name, value in entries.items()
        ]
        start = body.span.start
        comma = "," if body.entries else ""
        self.replace(Span(start, start), f"{','.join(texts)}{comma}")

    def _gap(self, body: Body) -> str:
        """Returns the blanks before the first entry of an object."""
        blanks = _BLANKS.match(self.text, body.span.start)
        return blanks[0] if blanks and body.entries else ""


def _api(name: str) -> str:
    return _API.get(name, name)


def _text(name: str, value: Any, margin: str) -> str:
    """Returns a value as JSON, in the form of Nomad's API.

    Args:
        name: name of the value in HCL.
        value: the value.
        margin: newline and indentation before the entry; empty writes one line.
    """
    if isinstance(value, dict) and name != "config":
        value = {_api(key): item for key, item in value.items()}
    if name == "network":
        value = [value]
    if not margin:
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, indent=4).replace("\n", margin)
