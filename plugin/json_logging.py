"""Log records as JSON lines on stderr: the form of hclog, which a Nomad agent reads.

The formatter forces the form for every record (go-plugin, log_entry.go and client.go):

- A `@message`, `@level` or `@timestamp` that is not a string panics the agent.
- The agent logs a level unknown to hclog at DEBUG.
- The agent takes a line for raw text if the fraction of `@timestamp` has not six digits, or if the
  line has 64 KiB or more.

A start of a task has about 17 lines below WARNING. A write for each line wakes the agent 17 times
beside the runtime, which costs a start more time than all other work for the lines. So a serving
plugin formats and writes such lines together, after the start.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
import sys
import threading
import time
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_LEVELS = (
    (logging.ERROR, "error"),
    (logging.WARNING, "warn"),
    (logging.INFO, "info"),
    (logging.DEBUG, "debug"),
)
_MAX_LINE = 60_000
_MAX_TEXT = 16_000
# JSON escapes of one character have up to 12 bytes: four short texts always fit into a line.
_SHORT_TEXT = 1_000
_NAMES = 256
_DELAY_S = 0.025
_MAX_NUMBER = 2**53  # Go's decoder, so the agent's log, loses digits of a larger number
_YEAR_10000_S = 253402300800
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET_KEY = ("password", "secret", "token", "auth", "credential", "env")
_SECRET_TEXT = re.compile(
    # "… may require authorization: <image>" is the most frequent error of a pull, not a secret.
    r"(://)[^/\s@]+@|((?:(?<!may require )authorization|password)[\"']?\s*[:=]\s*).+",
    re.IGNORECASE,
)
REDACTED = "<redacted>"

Scalar = str | int | float | bool


class HclogFormatter(logging.Formatter):
    """Formats any record as one valid line."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the JSON object, without a newline."""
        fields: dict[str, Scalar] = {
            "@level": _level(record.levelno),
            "@message": _text(_message(record)),
            "@module": _text(record.name),
            "@timestamp": _timestamp(record.created),
        }
        for key, value in vars(record).items():
            if key in _STANDARD:
                continue
            name = _name(key)
            if name not in _STANDARD and not name.startswith("@"):
                fields[name] = REDACTED if _is_secret(name) else _value(value)
        if isinstance(record.exc_info, tuple) and any(record.exc_info):
            fields["exception"] = _text(self._exception(record), keep_end=True)
        return _line(fields)

    def _exception(self, record: logging.LogRecord) -> str:
        try:
            return self.formatException(record.exc_info)  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001 - the record must not be lost
            return type(record.exc_info).__name__


class StderrHandler(logging.Handler):
    """Writes to stderr. After an agent's crash stderr is a broken pipe; errors are ignored.

    Each line is written at once. After `delay`, a record below WARNING waits for later records, for
    25 ms at most. Such a record has only values that do not change.
    """

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []
        self._later: Callable[[], object] | None = None

    def delay(self, loop: asyncio.AbstractEventLoop) -> None:
        """Writes lines below WARNING together, from now on."""
        thread = threading.get_ident()

        def later() -> None:
            if threading.get_ident() == thread:
                loop.call_later(_DELAY_S, self.flush)
            else:
                loop.call_soon_threadsafe(loop.call_later, _DELAY_S, self.flush)

        self._later = later

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line, or keeps the record. logging holds the handler's lock."""
        try:
            self._records.append(record)
            if self._later is None or record.levelno >= logging.WARNING:
                self.flush()
            elif len(self._records) == 1:
                self._later()
        except Exception:  # noqa: BLE001 - the loop is closed, or the record is damaged
            self.flush()

    def flush(self) -> None:
        """Writes the lines of the kept records."""
        with self.lock or contextlib.nullcontext(), contextlib.suppress(Exception):
            records, self._records = self._records, []
            sys.stderr.write("".join(f"{self.format(record)}\n" for record in records))
            sys.stderr.flush()


def write_together(loop: asyncio.AbstractEventLoop) -> None:
    """Writes lines below WARNING together, 25 ms late at most. Must be called on the loop.

    `logging.shutdown` writes the last lines. Only a plugin that is killed loses lines.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, StderrHandler):
            handler.delay(loop)


def install() -> None:
    """Sends all log records and uncaught exceptions of the process to the agent.

    All levels are sent: the agent filters by its own level.
    """
    handler = StderrHandler()
    handler.setFormatter(HclogFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG)
    for noisy in ("grpc", "asyncio", "pykka", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.raiseExceptions = False
    # No line names a source file, a thread or a process: finding them takes a third of the time.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    setattr(logging, "_srcfile", None)  # noqa: B010 - "Optimization" of Python's logging HOWTO
    # The agent would log each line of a plain-text traceback at DEBUG.
    sys.excepthook = _uncaught
    threading.excepthook = lambda hook: _uncaught(
        hook.exc_type, hook.exc_value or hook.exc_type(), hook.exc_traceback
    )


def _uncaught(
    kind: type[BaseException], error: BaseException, traceback: types.TracebackType | None
) -> None:
    logging.getLogger("plugin").critical(
        "unexpected failure: %s", error, exc_info=(kind, error, traceback)
    )


def _line(fields: dict[str, Scalar]) -> str:
    line = json.dumps(fields, ensure_ascii=True)
    if len(line) <= _MAX_LINE:
        return line
    base = {
        key: _cut(str(fields[key]), _SHORT_TEXT)
        for key in ("@level", "@message", "@module", "@timestamp")
    }
    end = _cut(str(fields.get("exception", "")), _SHORT_TEXT, keep_end=True)
    return json.dumps({**base, "exception": end, "cut": True} if end else {**base, "cut": True})


def _level(number: object) -> str:
    for floor, name in _LEVELS:
        if isinstance(number, int) and number >= floor:
            return name
    return "trace"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a record with wrong arguments must not be lost
        return _text(record.msg)


def _timestamp(created: object) -> str:
    usable = isinstance(created, int | float) and 0 <= created < _YEAR_10000_S
    seconds, fraction = divmod(int((created if usable else time.time()) * 1_000_000), 1_000_000)  # type: ignore[operator]
    return f"{_second(seconds)}.{fraction:06d}Z"


@functools.lru_cache(4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


@functools.lru_cache(_NAMES)
def _name(key: object) -> str:
    return _text(key)


@functools.lru_cache(_NAMES)
def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_KEY)


def _value(value: object) -> Scalar:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and -_MAX_NUMBER <= value <= _MAX_NUMBER:
        return value
    return _text(value)


def _text(value: object, *, keep_end: bool = False) -> str:
    """Returns text of limited length without secrets. No other place removes secrets from text."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - a record with a broken __str__ must not be lost
        text = f"<{type(value).__name__}>"
    text = _cut(text, _MAX_TEXT, keep_end=keep_end)
    if ":" not in text and "=" not in text:
        return text  # no secret; the search takes ten times as long as all other work for a line
    return _SECRET_TEXT.sub(_redact, text)


def _redact(match: re.Match[str]) -> str:
    return f"{match[1]}{REDACTED}@" if match[1] else f"{match[2]}{REDACTED}"


def _cut(text: str, limit: int, *, keep_end: bool = False) -> str:
    if len(text) <= limit:
        return text
    return f"…{text[-limit:]}" if keep_end else f"{text[:limit]}…"
