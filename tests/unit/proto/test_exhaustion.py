"""Errors of exhausted resources: advice, code, and recoverable or not."""

from __future__ import annotations

import errno
import os

import pytest

from proto.errors import Code
from proto.exhaustion import advice, exhausted


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "df -i"),
        (errno.EMFILE, "LimitNOFILE"),
        (errno.ENFILE, "fs.file-max"),
        (errno.EAGAIN, "TasksMax"),
        (errno.ENOMEM, "free memory"),
    ],
)
def test_an_exhausted_resource_is_named_with_its_path_and_is_recoverable(
    number: int, text: str
) -> None:
    failure = OSError(number, os.strerror(number), "/some/place")
    error = exhausted("cannot do it", failure, resolution="other", code=Code.PRECONDITION)
    assert error.code is Code.EXHAUSTED
    assert error.recoverable
    assert error.details == f"/some/place: {os.strerror(number)}"
    assert text in error.resolution


def test_another_failure_has_the_code_and_the_advice_of_the_caller() -> None:
    failure = PermissionError(errno.EPERM, "Operation not permitted")
    assert advice(failure) == ""
    error = exhausted("cannot do it", failure)
    assert (error.code, error.recoverable, error.resolution) == (Code.INTERNAL, False, "")
    error = exhausted("cannot do it", failure, resolution="be root", code=Code.PRECONDITION)
    assert (error.code, error.recoverable, error.resolution) == (
        Code.PRECONDITION,
        False,
        "be root",
    )


def test_a_caller_that_knows_better_calls_any_failure_exhausted_and_so_recoverable() -> None:
    error = exhausted("cannot do it", OSError(errno.EPERM, "no"), code=Code.EXHAUSTED)
    assert (error.code, error.recoverable) == (Code.EXHAUSTED, True)
