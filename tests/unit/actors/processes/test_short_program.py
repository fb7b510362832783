"""Short programs run to their end."""

from __future__ import annotations

import os

import pytest

from actors.processes import child_process, short_program
from actors.processes.short_program import Ended
from proto.errors import Code, DriverError

SHELL = "/bin/sh"


def test_a_program_answers_a_question_however_long_it_is() -> None:
    question = "x" * 1_000_000
    script = "cat; echo aside >&2; exit 3"
    ended = short_program.run([SHELL, "-c", script], question=question, timeout_s=30)
    assert ended == Ended(status=3, stdout=question, stderr="aside\n")


def test_its_environment_is_what_it_is_given() -> None:
    told = short_program.run(["/usr/bin/env"], env={"A": "1"}, timeout_s=30)
    assert told.stdout == "A=1\n"
    told = short_program.run(["/usr/bin/env"], timeout_s=30)
    pairs = dict(line.split("=", 1) for line in told.stdout.splitlines())
    assert pairs == dict(child_process.BASE_ENVIRONMENT)


def test_it_is_in_no_session_of_ours() -> None:
    told = short_program.run([SHELL, "-c", "cut -d ' ' -f 6 /proc/$$/stat"], timeout_s=30)
    assert int(told.stdout) != os.getsid(0)


def test_one_that_does_not_end_is_killed() -> None:
    with pytest.raises(DriverError, match="did not end by itself: signal 9") as error:
        short_program.run([SHELL, "-c", "exec sleep 600"], timeout_s=0.1)
    assert error.value.code is Code.TIMEOUT


def test_one_that_is_not_there_is_named() -> None:
    with pytest.raises(DriverError, match="/nonexistent does not start: No such file"):
        short_program.run(["/nonexistent"], timeout_s=30)
