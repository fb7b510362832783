"""Text for Nomad: what UTF-8 can say, and nothing that commands a terminal.

Names of files, of programs and of what an image says end up in errors and events, and from there on
an operator's terminal, where an escape sequence would be obeyed.
"""

from __future__ import annotations


def plain(text: str) -> str:
    """The text without control characters and halves of surrogate pairs; newlines stay."""
    valid = text.encode(errors="replace").decode()
    if valid.isprintable():
        return valid
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in valid)
