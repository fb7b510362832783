"""Errors cross process borders, and are copied with a field replaced."""

from __future__ import annotations

import pytest

from proto.errors import Code, DriverError, start_refused

WHOLE = DriverError(
    "cannot read", details="EIO", resolution="see dmesg", recoverable=True, code=Code.CORRUPT
)


def test_an_error_comes_over_the_wire_as_it_was() -> None:
    assert DriverError.from_wire(WHOLE.to_wire()).to_wire() == WHOLE.to_wire()


@pytest.mark.parametrize("fields", [None, "words", 7, [], {}])
def test_an_answer_without_an_error_is_still_a_failure(fields: object) -> None:
    error = DriverError.from_wire(fields)
    assert (error.brief, error.code) == ("unnamed failure", Code.INTERNAL)
    assert not error.recoverable


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("brief", "cannot write"),
        ("details", ""),
        ("resolution", ""),
        ("recoverable", False),
        ("code", Code.DENIED),
    ],
)
def test_one_field_is_replaced_and_the_others_stay(field: str, value: object) -> None:
    copy = WHOLE.replaced(**{field: value})  # type: ignore[arg-type]
    expected = {**WHOLE.to_wire(), field: value}
    assert copy.to_wire() == expected
    assert WHOLE.brief == "cannot read"


def test_a_refused_start_begins_with_the_text_that_operators_search_for() -> None:
    error = start_refused("tmpfs: '/x' is taken", "choose another target")
    assert str(error).startswith("Error in creating container: tmpfs: '/x' is taken")
    assert (error.code, error.recoverable) == (Code.INVALID, False)
