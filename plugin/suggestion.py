"""The one name among those that are known that somebody may have meant."""

from __future__ import annotations

from collections.abc import Iterable


def hint(word: str, known: Iterable[str]) -> str:
    """Returns what to put behind the sentence about an unknown name; empty where none is near."""
    import difflib  # noqa: PLC0415 - no part of any start

    near = difflib.get_close_matches(word, list(known), 1)
    return f', did you mean "{near[0]}"?' if near else ""
