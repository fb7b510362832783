"""Text for people: without control characters, and with a suggestion for an unknown name.

Names of files and programs, and texts of a job, an image or a registry, end up in errors and
events. An operator's terminal shows errors and events, and would obey an escape sequence in such a
text. Nomad and every command of the program get such texts only through this module.
"""

from __future__ import annotations

from collections.abc import Iterable


def plain(text: str) -> str:
    """Returns valid UTF-8 text, with U+FFFD for each control character; newlines and tabs stay."""
    valid = text.encode(errors="replace").decode()
    if valid.isprintable():
        return valid
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in valid)


def indented(text: str) -> str:
    """Returns plain text with all lines but the first indented.

    So no line of foreign text looks like a line of the program.
    """
    return plain(text).replace("\n", "\n  ")


def one_line(text: str) -> str:
    """Returns plain text in one line, for a cell of a table or a name before a line."""
    return " ".join(plain(text).split())


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns the end of a sentence about an unknown name: the most similar known name.

    The result is empty if no known name is similar.
    """
    import difflib  # noqa: PLC0415 - only an error needs difflib

    similar = difflib.get_close_matches(name, list(known), 1)
    return f', did you mean "{similar[0]}"?' if similar else ""
