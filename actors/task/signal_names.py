"""Signals by name or number, as jobs and operators write them."""

from __future__ import annotations

import re
import signal

from proto.errors import Code, DriverError

# The names that the Go driver takes; SIGNULL is 0, a mere check that the process is there.
_EXTRA = {"SIGNULL": 0, "SIGIOT": signal.SIGABRT.value, "SIGPOLL": signal.SIGIO.value}
_NAMES = {member.name: member.value for member in signal.Signals} | _EXTRA
_HIGHEST = 64
_NUMBER = re.compile(r"[0-9]{1,2}")
# As images with systemd write their stop signal. glibc keeps the first two for itself.
_REAL_TIME = re.compile(r"(?:SIG)?RT(MIN\+|MAX-)([0-9]{1,2})")
_FIRST_REAL_TIME = 34


def number(text: str) -> int:
    """The number of `SIGTERM`, `TERM`, `sigterm` or `15`.

    Raises:
        DriverError: `Invalid signal: <text>`, code INVALID.
    """
    word = text.strip().upper()
    if _NUMBER.fullmatch(word) and int(word) <= _HIGHEST:
        return int(word)
    known = _NAMES.get(word, _NAMES.get(f"SIG{word}", _real_time(word)))
    if known is None:
        raise DriverError(
            f"Invalid signal: {text[:64]}",
            resolution="use a name such as SIGHUP or a number from 0 to 64",
            code=Code.INVALID,
        )
    return known


def _real_time(word: str) -> int | None:
    match = _REAL_TIME.fullmatch(word)
    if match is None:
        return None
    way = int(match[2])
    found = _HIGHEST - way if match[1] == "MAX-" else _FIRST_REAL_TIME + way
    return found if _FIRST_REAL_TIME <= found <= _HIGHEST else None


def stop_signal(asked: str, images: str) -> int:
    """The one that is asked for, else the image's; SIGTERM when there is none.

    An image may name any text, and nobody could stop its task: that counts as none.

    Raises:
        DriverError: see `number`; the request has to change.
    """
    if asked:
        return number(asked)
    try:
        return number(images) if images else signal.SIGTERM.value
    except DriverError:
        return signal.SIGTERM.value
