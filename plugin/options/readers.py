"""Readers of single option values: from decoded msgpack to a checked Python value.

A reader takes (value, path, problems) and returns the checked value. For a wrong value the reader
appends a sentence, which begins with the path, to `problems`; the returned value is then not used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from actors.model import identifiers
from proto.errors import DriverError

Reader = Callable[[Any, str, list[str]], Any]


class Fields(dict[str, Any]):
    """Values for several fields of a dataclass, by name: the result of some readers."""


MAX_TEXT_BYTES = 4096
MAX_ITEMS = 1024
MAX_NAME_BYTES = 4095  # the kernel's PATH_MAX without the NUL
MAX_ARGUMENT_BYTES = 128 * 1024 - 1  # the kernel's MAX_ARG_STRLEN without the NUL
# Limit of execve(2) for arguments and environment together, with a pointer for each word.
MAX_ARGUMENTS_BYTES = 6 * 1024 * 1024
_POINTER_BYTES = 8
# Further problems are not shown, and each problem is a sentence in memory.
_MANY_PROBLEMS = 100
_UNITS_S = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
# The kernel, /etc/hosts and /etc/hostname get the name: blanks and newlines are not allowed.
# containerd's identifiers.Validate, also for namespaces.
_CONTAINERD_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MAX_DURATION_S = 366 * 24 * 3600.0


def parse_duration_s(text: str) -> float:
    """Returns the seconds of a Go duration: `1h30m`, `1.5s`, `100ms`, `0`.

    Raises:
        ValueError: the text is no duration, is negative or longer than a year.
    """
    if text in {"0", "+0", "-0"}:
        return 0.0
    position, seconds = int(text.startswith("+")), 0.0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            break
        seconds += float(part[1]) * _UNITS_S[part[2]]
        position = part.end()
    if text in {"", "+"} or position != len(text):
        raise ValueError(f'invalid duration "{text[:64]}", write it like "30s", "5m" or "1h30m"')
    if seconds > _MAX_DURATION_S:
        raise ValueError(f'duration "{text[:64]}" is longer than a year')
    return seconds


def boolean(value: Any, path: str, problems: list[str]) -> bool:
    """Reads true or false."""
    if not isinstance(value, bool):
        problems.append(f"{path}: {shown(value)} is not true or false")
        return False
    return value


def text(limit: int = MAX_TEXT_BYTES, *, secret: bool = False) -> Reader:
    """Returns a reader of strings without NUL.

    Args:
        limit: most bytes of the string.
        secret: True keeps the value out of the problem.
    """

    def read(value: Any, path: str, problems: list[str]) -> str:
        if not isinstance(value, str):
            problems.append(f"{path}: {'the value' if secret else shown(value)} is not a string")
        elif "\0" in value:
            problems.append(f"{path}: has a NUL byte")
        elif len(value.encode(errors="surrogatepass")) > limit:
            problems.append(f"{path}: longer than {limit} bytes")
        else:
            return value
        return ""

    return read


def required_text(value: Any, path: str, problems: list[str]) -> str:
    """Reads a string that is not empty."""
    string: str = text()(value, path, problems)
    if isinstance(value, str) and not value.strip():
        problems.append(f"{path}: must not be empty")
    return string


def texts(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
    """Reads a list of at most `MAX_ITEMS` strings."""
    if isinstance(value, list | tuple) and len(value) > MAX_ITEMS:
        problems.append(f"{path}: has {len(value)} items, at most {MAX_ITEMS}")
        return ()
    return words(value, path, problems)


def words(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
    """Reads a list of strings within the limits of execve(2)."""
    if not isinstance(value, list | tuple):
        problems.append(f"{path}: {shown(value)} is not a list of strings")
        return ()
    most = MAX_ARGUMENTS_BYTES // (_POINTER_BYTES + 1)
    if len(value) > most:
        problems.append(f"{path}: has {len(value)} items, at most {most}")
        return ()
    read = text(MAX_ARGUMENT_BYTES)
    items: list[str] = []
    before = len(problems)
    for index, item in enumerate(value):
        items.append(read(item, f"{path}[{index}]", problems))
        if len(problems) - before >= _MANY_PROBLEMS:
            break
    if sum(len(item.encode(errors="surrogatepass")) + 1 for item in items) > MAX_ARGUMENTS_BYTES:
        problems.append(f"{path}: longer than {MAX_ARGUMENTS_BYTES} bytes together")
    return tuple(items)


def duration_s(*, prefix: str = "", at_least: float = 0.0) -> Reader:
    """Returns a reader of Go durations in seconds.

    Args:
        prefix: begins the problem, for texts that operators search for.
        at_least: smallest allowed duration in seconds.
    """

    def read(value: Any, path: str, problems: list[str]) -> float:
        try:
            seconds = parse_duration_s(value if isinstance(value, str) else str(value))
        except ValueError as error:
            problems.append(f"{path}: {prefix}{error}")
            return 0.0
        if seconds < at_least:
            problems.append(f'{path}: {prefix}"{value}" is less than {at_least:g}s')
        return seconds

    return read


def absolute_path(value: Any, path: str, problems: list[str]) -> str:
    """Reads an absolute path of the host without `..`, or an empty text."""
    string: str = text()(value, path, problems)
    if string and (not string.startswith("/") or "/../" in f"{string}/"):
        problems.append(f"{path}: {shown(string)} is not an absolute path without ..")
    return string


def required_path(value: Any, path: str, problems: list[str]) -> str:
    """Reads an absolute path of the host; an empty path would mean the working directory."""
    return absolute_path(required_text(value, path, problems), path, problems)


def container_path(value: Any, path: str, problems: list[str]) -> str:
    """Reads an absolute path in the container, or an empty text."""
    string: str = text()(value, path, problems)
    if string and not string.startswith("/"):
        problems.append(f'{path}: {shown(string)} is not absolute, did you mean "/{string[:64]}"?')
    return string


def hostname(value: Any, path: str, problems: list[str]) -> str:
    """Reads a host name, or an empty text."""
    string: str = text(63)(value, path, problems)
    if string:
        try:
            identifiers.checked_hostname(string, path)
        except DriverError as error:
            problems.append(error.brief)
    return string


def containerd_name(value: Any, path: str, problems: list[str]) -> str:
    """Reads a name by containerd's rule, or an empty text."""
    string: str = text(76)(value, path, problems)
    if string and not _CONTAINERD_NAME.fullmatch(string):
        problems.append(
            f"{path}: {shown(string)} is not a containerd name:"
            " letters and digits, with single . _ or - between these"
        )
    return string


def absolute_paths(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
    """Reads a list of absolute paths of the host."""
    return tuple(
        absolute_path(item, f"{path}[{index}]", problems)
        for index, item in enumerate(texts(value, path, problems))
    )


def file_name(value: Any, path: str, problems: list[str]) -> str:
    """Reads the name of a file without a directory, or an empty text."""
    string: str = text(255)(value, path, problems)
    if string and not _FILE_NAME.fullmatch(string):
        problems.append(f"{path}: {shown(string)} is not a file name: letters, digits, . _ and -")
    return string


def integer(at_least: int, at_most: int) -> Reader:
    """Returns a reader of whole numbers from `at_least` to `at_most`.

    Nomad's encoder writes some whole numbers as floats.
    """

    def read(value: Any, path: str, problems: list[str]) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            problems.append(f"{path}: {shown(value)} is not a whole number")
        elif not at_least <= value <= at_most:
            problems.append(f"{path}: {value} is not between {at_least} and {at_most}")
        else:
            return value
        return 0

    return read


def choice(*words: str) -> Reader:
    """Returns a reader of one of the words, or of an empty text."""

    def read(value: Any, path: str, problems: list[str]) -> str:
        string: str = text()(value, path, problems)
        if string and string not in words:
            problems.append(f"{path}: {shown(string)} is not one of {', '.join(words)}")
        return string

    return read


def host_mode(sentence: str) -> Reader:
    """Returns a reader of `host` in any case, `private` or an empty text; the last two read as "".

    Args:
        sentence: the problem with any other text.
    """

    def read(value: Any, path: str, problems: list[str]) -> str:
        string: str = text()(value, path, problems).lower()
        if string not in {"", "host", "private"}:
            problems.append(f"{path}: {sentence}")
        return "host" if string == "host" else ""

    return read


def shown(value: object) -> str:
    """Returns the value for a sentence: quoted, and cut after 64 characters."""
    shown = repr(value)
    return shown if len(shown) <= 64 else f"{shown[:64]}…"  # noqa: PLR2004
