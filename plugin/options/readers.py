"""How single option values are read: from what Nomad's msgpack gives to a checked Python value.

A reader takes (value, path, problems), appends a sentence to problems for what is wrong, and
returns the value; what it returns beside a problem is never used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Reader = Callable[[Any, str, list[str]], Any]


class Fields(dict[str, Any]):
    """What a reader returns whose value fills several fields, by their names."""


MAX_TEXT_BYTES = 4096
MAX_ITEMS = 1024
MAX_ARGUMENT_BYTES = 128 * 1024 - 1  # the kernel's MAX_ARG_STRLEN without the NUL
# What execve takes at most of arguments and environment together, with a pointer for each word.
MAX_ARGUMENTS_BYTES = 6 * 1024 * 1024
_POINTER_BYTES = 8
# Nobody reads more, and each is a sentence in memory.
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
# A host name goes into the kernel, /etc/hosts and /etc/hostname: no blanks, no newlines.
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
# containerd's identifiers.Validate, which namespaces pass too.
_CONTAINERD_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MAX_DURATION_S = 366 * 24 * 3600.0


def parse_duration_s(text: str) -> float:
    """Seconds of a Go duration: `1h30m`, `1.5s`, `100ms`, `0`.

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
    """True or false."""
    if not isinstance(value, bool):
        problems.append(f"{path}: {shown(value)} is not true or false")
        return False
    return value


def text(limit: int = MAX_TEXT_BYTES, *, secret: bool = False) -> Reader:
    """A string of at most so many bytes, without NUL. A secret is not shown in the problem."""

    def read(value: Any, path: str, problems: list[str]) -> str:
        if not isinstance(value, str):
            problems.append(f"{path}: {'it' if secret else shown(value)} is not a string")
        elif "\0" in value:
            problems.append(f"{path}: has a NUL byte")
        elif len(value.encode(errors="surrogatepass")) > limit:
            problems.append(f"{path}: longer than {limit} bytes")
        else:
            return value
        return ""

    return read


def required_text(value: Any, path: str, problems: list[str]) -> str:
    """A string that is not empty."""
    found: str = text()(value, path, problems)
    if isinstance(value, str) and not value.strip():
        problems.append(f"{path}: must not be empty")
    return found


def texts(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
    """A list of strings, of at most `MAX_ITEMS`."""
    if isinstance(value, list | tuple) and len(value) > MAX_ITEMS:
        problems.append(f"{path}: has {len(value)} items, at most {MAX_ITEMS}")
        return ()
    return words(value, path, problems)


def words(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
    """A list of strings, as many as execve takes."""
    if not isinstance(value, list | tuple):
        problems.append(f"{path}: {shown(value)} is not a list of strings")
        return ()
    most = MAX_ARGUMENTS_BYTES // (_POINTER_BYTES + 1)
    if len(value) > most:
        problems.append(f"{path}: has {len(value)} items, at most {most}")
        return ()
    read = text(MAX_ARGUMENT_BYTES)
    found: list[str] = []
    before = len(problems)
    for index, item in enumerate(value):
        found.append(read(item, f"{path}[{index}]", problems))
        if len(problems) - before >= _MANY_PROBLEMS:
            break
    if sum(len(item.encode(errors="surrogatepass")) + 1 for item in found) > MAX_ARGUMENTS_BYTES:
        problems.append(f"{path}: longer than {MAX_ARGUMENTS_BYTES} bytes together")
    return tuple(found)


def duration_s(*, prefix: str = "", at_least: float = 0.0) -> Reader:
    """Seconds of a Go duration. prefix starts the sentence, for texts that users grep."""

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
    """An absolute path of the host."""
    found: str = text()(value, path, problems)
    if found and (not found.startswith("/") or "/../" in f"{found}/"):
        problems.append(f"{path}: {shown(found)} is not an absolute path without ..")
    return found


def required_path(value: Any, path: str, problems: list[str]) -> str:
    """An absolute path of the host; empty would be the working directory."""
    return absolute_path(required_text(value, path, problems), path, problems)


def container_path(value: Any, path: str, problems: list[str]) -> str:
    """An absolute path in the container, or nothing."""
    found: str = text()(value, path, problems)
    if found and not found.startswith("/"):
        problems.append(f'{path}: {shown(found)} is not absolute, did you mean "/{found[:64]}"?')
    return found


def hostname(value: Any, path: str, problems: list[str]) -> str:
    """A host name, or nothing."""
    found: str = text(63)(value, path, problems)
    if found and not _HOSTNAME.fullmatch(found):
        problems.append(f"{path}: {shown(found)} is not a host name: letters, digits, - and .")
    return found


def containerd_name(value: Any, path: str, problems: list[str]) -> str:
    """A name by containerd's rule, or nothing."""
    found: str = text(76)(value, path, problems)
    if found and not _CONTAINERD_NAME.fullmatch(found):
        problems.append(
            f"{path}: {shown(found)} is not a name of containerd's:"
            " letters and digits, with single . _ or - between them"
        )
    return found


def absolute_paths(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
    """A list of absolute paths of the host."""
    return tuple(
        absolute_path(item, f"{path}[{index}]", problems)
        for index, item in enumerate(texts(value, path, problems))
    )


def file_name(value: Any, path: str, problems: list[str]) -> str:
    """The name of a file without a directory, or nothing."""
    found: str = text(255)(value, path, problems)
    if found and not _FILE_NAME.fullmatch(found):
        problems.append(f"{path}: {shown(found)} is not a plain name")
    return found


def integer(at_least: int, at_most: int) -> Reader:
    """A whole number; Nomad's encoder writes some of them as floats."""

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
    """One of the words, or nothing."""

    def read(value: Any, path: str, problems: list[str]) -> str:
        found: str = text()(value, path, problems)
        if found and found not in words:
            problems.append(f"{path}: {shown(found)} is not one of {', '.join(words)}")
        return found

    return read


def host_mode(sentence: str) -> Reader:
    """`host` in any case, or nothing; the sentence says what is wrong with anything else."""

    def read(value: Any, path: str, problems: list[str]) -> str:
        found: str = text()(value, path, problems).lower()
        if found not in {"", "host", "private"}:
            problems.append(f"{path}: {sentence}")
        return "host" if found == "host" else ""

    return read


def shown(value: object) -> str:
    """The value as a sentence shows it: quoted and not longer than a line takes."""
    shown = repr(value)
    return shown if len(shown) <= 64 else f"{shown[:64]}…"  # noqa: PLR2004
