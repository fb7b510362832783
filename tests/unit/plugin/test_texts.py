"""Text from strangers on the way to a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.texts import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a sentence", "a sentence"),
        ("zwölf ☃", "zwölf ☃"),
        ("two\nlines\t.", "two\nlines\t."),
        ("\x1b]0;title\x07\x1b[2J", "�]0;title��[2J"),
        ("abc\u202etxt.exe", "abc�txt.exe"),
        ("\x9b31m\0\r", "�31m��"),
        ("half \ud800", "half ?"),
    ],
)
def test_nothing_commands_a_terminal(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_becomes_one_that_protobuf_takes(text: str) -> None:
    found = plain(text)
    found.encode()
    assert all(c.isprintable() or c in "\n\t" for c in found)
    assert plain(found) == found
