"""Signals by name or number, as jobs and operators write them."""

from __future__ import annotations

import signal

from proto.errors import Code, DriverError

# The names that the Go driver takes; SIGNULL is 0, a mere check that the process is there.
_EXTRA = {"SIGNULL": 0, "SIGIOT": signal.SIGABRT.value, "SIGPOLL": signal.SIGIO.value}
_NAMES = {member.name: member.value for member in signal.Signals} | _EXTRA
_HIGHEST = 64


def number(text: str) -> int:
    """The number of `SIGTERM`, `TERM`, `sigterm` or `15`.

    Raises:
        DriverError: `Invalid signal: <text>`, code INVALID.
    """
    word = text.strip().upper()
    if word.isdecimal() and int(word) <= _HIGHEST:
        return int(word)
    known = _NAMES.get(word, _NAMES.get(f"SIG{word}"))
    if known is None:
        raise DriverError(
            f"Invalid signal: {text[:64]}",
            resolution="use a name such as SIGHUP or a number from 0 to 64",
            code=Code.INVALID,
        )
    return known


def stop_signal(*candidates: str) -> int:
    """The first candidate that is given; SIGTERM when none is."""
    for text in candidates:
        if text:
            return number(text)
    return signal.SIGTERM.value
