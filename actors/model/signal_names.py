"""Names and numbers of signals, as jobs and operators write signals."""

from __future__ import annotations

import re
import signal

from proto.errors import Code, DriverError

# Names of the Go driver beside Python's names. Signal 0 only checks that the process exists.
_EXTRA = {"SIGNULL": 0, "SIGIOT": signal.SIGABRT.value, "SIGPOLL": signal.SIGIO.value}
_NUMBERS = {member.name: member.value for member in signal.Signals} | _EXTRA
_HIGHEST = 64
_NUMBER = re.compile(r"[0-9]{1,2}")
# The form of stop signals in images with systemd. glibc reserves the first two real-time signals.
_REAL_TIME = re.compile(r"(?:SIG)?RT(MIN\+|MAX-)([0-9]{1,2})")
_FIRST_REAL_TIME = 34


def number(text: str) -> int:
    """Returns the number of `SIGTERM`, `TERM`, `sigterm` or `15`.

    Raises:
        DriverError: `Invalid signal: <text>`, code INVALID.
    """
    word = text.strip().upper()
    if _NUMBER.fullmatch(word) and int(word) <= _HIGHEST:
        return int(word)
    value = _NUMBERS.get(word, _NUMBERS.get(f"SIG{word}", _real_time(word)))
    if value is None:
        raise DriverError(
            f"Invalid signal: {text[:64]}",
            resolution="use a name such as SIGHUP or a number from 0 to 64",
            code=Code.INVALID,
        )
    return value


def name(value: int) -> str:
    """Returns the name of a signal for log lines; the number for a signal without a name."""
    try:
        return signal.Signals(value).name
    except ValueError:
        return str(value)


def _real_time(word: str) -> int | None:
    match = _REAL_TIME.fullmatch(word)
    if match is None:
        return None
    offset = int(match[2])
    value = _HIGHEST - offset if match[1] == "MAX-" else _FIRST_REAL_TIME + offset
    return value if _FIRST_REAL_TIME <= value <= _HIGHEST else None


def stop_signal(requested: str, of_image: str) -> int:
    """Returns the number of the signal that stops a task; SIGTERM if no signal is named.

    An image may name any text as stop signal. A text that is no signal is ignored, because
    the task could not be stopped otherwise.

    Args:
        requested: the signal in the request or the job, by name or number; may be empty.
        of_image: the signal in the image's config; may be empty.

    Raises:
        DriverError: see `number`; `requested` is no signal.
    """
    if requested:
        return number(requested)
    try:
        return number(of_image) if of_image else signal.SIGTERM.value
    except DriverError:
        return signal.SIGTERM.value
