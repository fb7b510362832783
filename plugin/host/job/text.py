"""The text of a job file or of an agent's file, and what every string in it has to be.

Whoever wrote the file is not trusted to have written a small, flat or valid one.
"""

from __future__ import annotations

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
# A template's text is a file, which may have any byte.
_ANY_CHARACTER = "data"


def read(path: Path) -> str:
    """Returns the text of a file; `-` is stdin.

    Raises:
        DriverError: code INVALID; the file cannot be read, or is no text, or has no end.
    """
    try:
        if str(path) == "-":
            text = sys.stdin.read(_MAX_CHARACTERS + 1)
        else:
            with path.open(encoding="utf-8") as file:
                text = file.read(_MAX_CHARACTERS + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DriverError(f"{path}: cannot be read: {why}", code=Code.INVALID) from error
    if len(text) > _MAX_CHARACTERS:
        raise DriverError(
            f"{path}: is larger than {_MAX_CHARACTERS >> 20} MiB",
            resolution="put large files into an image, a host volume or an artifact",
            code=Code.INVALID,
        )
    return text


def check(name: str, tree: Any) -> None:
    """Looks at every string and at the depth of what was read from a file.

    Raises:
        DriverError: code INVALID; the first thing that cannot be used, and where it stands.
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
    """Returns the refusal of what is nested too deeply."""
    return DriverError(
        f"{where}: is nested deeper than {MAX_DEPTH} levels",
        resolution="no job needs that many: look for a bracket that is never closed",
        code=Code.INVALID,
    )


def _below(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            here = (*path, str(key))
            yield here, item
            # A key is a name: no file, so none of its characters is free.
            yield (*here, "name"), str(key)
    elif isinstance(value, list):
        # A list adds a level but no name: errors read like the blocks of the file.
        for item in value:
            yield (*path, "") if isinstance(item, list) else path, item


def _wrong(text: str, *, any_character: bool) -> str:
    if not any_character and "\0" in text:
        return "has a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"has half a character (U+{ord(text[error.start]):04X}), which is no text"
    return ""
