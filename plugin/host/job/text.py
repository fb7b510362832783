"""Text of a job file or an agent's file: limits of its size, its depth and its characters.

The author of a file is not trusted: a file may be huge, deeply nested or invalid.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proto.errors import Code, DriverError

Block = dict[str, Any]
"""A block of a job: keys, and the values or blocks below them."""

MAX_DEPTH = 64
"""Levels of blocks, lists and objects. Nomad's deepest job has under 20."""
_MAX_CHARACTERS = 4 << 20
# The text of a template becomes a file, and a file may have any byte.
_ANY_CHARACTER = "data"


def read_text(path: Path, *, exact: bool = False) -> str:
    """Returns the text of a file; `-` is stdin.

    Args:
        path: the file.
        exact: True keeps each CR before a newline.

    Raises:
        DriverError: code INVALID, the file cannot be read, is not UTF-8, or is too large.
    """
    try:
        if str(path) == "-":
            if exact and isinstance(sys.stdin, io.TextIOWrapper):
                sys.stdin.reconfigure(newline="")
            text = sys.stdin.read(_MAX_CHARACTERS + 1)
        else:
            with path.open(encoding="utf-8", newline="" if exact else None) as file:
                text = file.read(_MAX_CHARACTERS + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DriverError(f"{path}: cannot be read: {reason}", code=Code.INVALID) from error
    if len(text) > _MAX_CHARACTERS:
        raise DriverError(
            f"{path}: is larger than {_MAX_CHARACTERS >> 20} MiB",
            resolution="put large files into an image, a host volume or an artifact",
            code=Code.INVALID,
        )
    return text


def check_tree(name: str, tree: Any) -> None:
    """Checks the depth and every string of a parsed file.

    Args:
        name: name of the file in errors.
        tree: dicts, lists and values of the file.

    Raises:
        DriverError: code INVALID, with the path of the first wrong string.
    """
    waiting: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    while waiting:
        path, value = waiting.pop()
        if len(path) > MAX_DEPTH:
            raise too_deep(f"{name}: {'.'.join(path[:8])}…")
        if isinstance(value, str):
            wrong = _wrong(value, any_character=path[-1:] == (_ANY_CHARACTER,))
            if wrong:
                raise DriverError(f"{name}: {'.'.join(path)} {wrong}", code=Code.INVALID)
        waiting += _below(path, value)


def too_deep(where: str) -> DriverError:
    """Returns the error about too many levels."""
    return DriverError(
        f"{where}: is nested deeper than {MAX_DEPTH} levels",
        resolution="no job needs so many levels: search for an unclosed bracket",
        code=Code.INVALID,
    )


def _below(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            here = (*path, str(key))
            yield here, item
            # A key becomes a name, so a key has the limits of all strings but "data".
            yield (*here, "name"), str(key)
    elif isinstance(value, list):
        # A list adds a level but no name: paths in errors have the names of blocks.
        for item in value:
            yield (*path, "") if isinstance(item, list) else path, item


def _wrong(text: str, *, any_character: bool) -> str:
    if not any_character and "\0" in text:
        return "has a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"has half of a surrogate pair (U+{ord(text[error.start]):04X}), not a character"
    return ""
