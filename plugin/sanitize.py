"""Text for people: what UTF-8 can say, and nothing that commands a terminal.

Names of files, of programs and of what a job, an image or a registry says end up in errors and
events, and from there on an operator's terminal, where an escape sequence would be obeyed. Nomad
and every command of this program show such text only by way of this module.
"""

from __future__ import annotations


def plain(text: str) -> str:
    """The text without control characters and halves of surrogate pairs; newlines stay."""
    valid = text.encode(errors="replace").decode()
    if valid.isprintable():
        return valid
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in valid)


def indented(text: str) -> str:
    """Returns plain text whose further lines stand in: none of them looks like one of ours."""
    return plain(text).replace("\n", "\n  ")


def one_line(text: str) -> str:
    """Returns plain text for a cell of a table or a name before a line."""
    return " ".join(plain(text).split())
