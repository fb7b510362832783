"""Parser of a plugin's log lines, as in a Nomad agent."""

from __future__ import annotations

import json
import logging
from typing import Any

from proto.values import dataclass

_LEVELS = {"error": logging.ERROR, "warn": logging.WARNING, "info": logging.INFO}
_PREFIXES = {
    "[ERROR]": logging.ERROR,
    "[WARN]": logging.WARNING,
    "[INFO]": logging.INFO,
    "panic:": logging.ERROR,
    "fatal error:": logging.ERROR,
}


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line; `level` is a level of the logging module."""

    level: int
    text: str


def parse_line(line: bytes) -> LogLine:
    """Parses a line of the plugin's stderr: hclog's JSON, or plain text."""
    plain = line.decode(errors="replace").rstrip()
    try:
        fields = json.loads(plain)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or "@message" not in fields:
        return LogLine(_level_of(plain), plain)
    level = _LEVELS.get(str(fields.get("@level")), logging.DEBUG)
    words = [str(fields["@message"])]
    words += [f"{key}={_shown(value)}" for key, value in fields.items() if not key.startswith("@")]
    return LogLine(level, " ".join(words))


def _level_of(plain: str) -> int:
    for prefix, level in _PREFIXES.items():
        if plain.startswith(prefix):
            return level
    return logging.DEBUG


def _shown(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if " " in text or "\n" in text else text
