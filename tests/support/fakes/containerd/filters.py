"""Labels and filters of containerd's lists."""

from __future__ import annotations

import json
import re
from typing import Any

_COND = re.compile(r'(?:labels\."?([^"=]+)"?|id)(?:==("(?:[^"\\]|\\.)*"|[^",]+))?')


def set_label(labels: Any, key: str, value: str) -> None:
    """Sets a label; an empty value removes the label."""
    if value:
        labels[key] = value
    else:
        labels.pop(key, None)


def matches(item: Any, filters: Any) -> bool:
    """Checks whether an object meets one of the filters; without filters, each object does."""
    found = [_COND.fullmatch(text) for text in filters]
    assert all(found), f"the fake knows no such filter: {filters}"
    return not found or any(one and _meets(item, one[1], one[2]) for one in found)


def _meets(item: Any, label: str | None, value: str | None) -> bool:
    if label is None:
        return value is not None and json.loads(value) == item.id
    return _holds(item.labels, label, value)


def _holds(labels: Any, key: str, value: str | None) -> bool:
    """Checks whether a label exists, and has the value if given; Go's quotes are JSON's here."""
    if value is None or key not in labels:
        return key in labels
    return bool(labels[key] == (json.loads(value) if value.startswith('"') else value))
