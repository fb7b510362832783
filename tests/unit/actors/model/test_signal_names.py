"""Signals by name and number, from jobs, from operators and from unchecked images."""

from __future__ import annotations

import contextlib
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.model import signal_names
from proto.errors import Code, DriverError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("hup", 1),
        ("15", 15),
        ("SIGNULL", 0),
        ("SIGRTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("rtmin+30", 64),
        ("SIGRTMAX-1", 63),
    ],
)
def test_names_and_numbers_are_known(text: str, number: int) -> None:
    assert signal_names.number(text) == number


@pytest.mark.parametrize(
    "text", ["", "SIG", "65", "-9", "9" * 5000, "٩", "SIGRTMIN+31", "RTMAX-40"]
)
def test_what_is_no_signal_is_said(text: str) -> None:
    with pytest.raises(DriverError, match="Invalid signal: ") as caught:
        signal_names.number(text)
    assert caught.value.code is Code.INVALID
    assert len(str(caught.value)) < 200


@given(st.text())
def test_any_text_is_a_signal_or_none(text: str) -> None:
    with contextlib.suppress(DriverError):
        assert 0 <= signal_names.number(text) <= 64


@pytest.mark.parametrize("images", ["SIGFUN", "9" * 5000, "?", "-1"])
def test_no_image_makes_a_task_that_cannot_be_stopped(images: str) -> None:
    assert signal_names.stop_signal("", images) == signal.SIGTERM
    assert signal_names.stop_signal("INT", images) == signal.SIGINT


def test_the_one_that_is_asked_for_wins_and_must_be_right() -> None:
    assert signal_names.stop_signal("", "SIGRTMIN+3") == 37
    assert signal_names.stop_signal("", "") == signal.SIGTERM
    with pytest.raises(DriverError, match="Invalid signal: NONE"):
        signal_names.stop_signal("NONE", "SIGINT")
