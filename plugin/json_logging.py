"""Log records as one JSON object per line on stderr, the form that Nomad's agent reads (hclog).

A `@message`, `@level` or `@timestamp` that is not a string panics the agent, levels that hclog
does not know sink to DEBUG, and a fraction of other than six digits makes a raw line of it
(go-plugin, log_entry.go): all three are forced here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time

_LEVELS = (
    (logging.ERROR, "error"),
    (logging.WARNING, "warn"),
    (logging.INFO, "info"),
    (logging.DEBUG, "debug"),
)
# go-plugin cuts lines at 64 KiB and then takes them for raw text.
_MAX_TEXT = 16_000
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET = ("password", "secret", "token", "auth", "credential", "env")
REDACTED = "<redacted>"


class HclogFormatter(logging.Formatter):
    """Formats one record; whatever is in it, the result is one valid line."""

    def format(self, record: logging.LogRecord) -> str:
        """The JSON object, without a newline."""
        fields: dict[str, str | int | float | bool] = {
            "@level": _level(record.levelno),
            "@message": _text(_message(record)),
            "@module": str(record.name),
            "@timestamp": _timestamp(record.created),
        }
        for key, value in vars(record).items():
            if key not in _STANDARD and not key.startswith("@"):
                fields[str(key)] = _value(str(key), value)
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = _text(self.formatException(record.exc_info))
        return json.dumps(fields, ensure_ascii=True)


class _StderrHandler(logging.Handler):
    """Writes to stderr; after an agent's crash that is a broken pipe, and nobody is to be told."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()


def install() -> None:
    """Makes every logger of the process speak to Nomad. The agent filters by its own level."""
    handler = _StderrHandler()
    handler.setFormatter(HclogFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("grpc", "asyncio", "pykka", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.raiseExceptions = False


def _level(number: int) -> str:
    for floor, name in _LEVELS:
        if number >= floor:
            return name
    return "trace"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit must not lose the record
        return str(record.msg)


def _timestamp(created: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created))
    return f"{whole}.{int(created * 1_000_000) % 1_000_000:06d}Z"


def _value(key: str, value: object) -> str | int | float | bool:
    if any(word in key.lower() for word in _SECRET):
        return REDACTED
    if isinstance(value, bool | int | float):
        return value
    return _text(value)


def _text(value: object) -> str:
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - a broken __str__ must not lose the record
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
