"""Tests of the health checks of images and jobs, and of their merge."""

from __future__ import annotations

from typing import Any

import pytest

from containerd.image.health_check import HealthCheck, complete, parse

SECOND = 1_000_000_000


def test_the_check_of_an_image_is_read() -> None:
    fields = {
        "Test": ["CMD-SHELL", "curl -f localhost"],
        "Interval": 5 * SECOND,
        "Timeout": SECOND // 2,
        "StartPeriod": 0,
        "Retries": 2,
    }
    assert parse(fields) == HealthCheck(
        test=("CMD-SHELL", "curl -f localhost"), interval_s=5.0, timeout_s=0.5, retries=2
    )


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        "x",
        {},
        {"Test": []},
        {"Test": "x"},
        {"Test": ["CMD", 1]},
        {"Test": ["CMD", "a\0b"]},
        {"Test": ["CMD", "\ud800"]},
    ],
)
def test_a_malformed_check_of_an_image_is_no_check(fields: Any) -> None:
    assert parse(fields) is None


@pytest.mark.parametrize("value", [-1, 1.5, True, "5s", None, 10**30])
def test_a_malformed_time_of_an_image_is_not_set(value: Any) -> None:
    fields = {"Test": ["CMD", "a"], "Interval": value, "Retries": value}
    assert parse(fields) == HealthCheck(test=("CMD", "a"))


def test_an_image_cannot_ask_for_checks_without_a_pause() -> None:
    read = parse({"Test": ["CMD", "a"], "Interval": 1, "Timeout": 1, "StartInterval": 1})
    assert read is not None
    assert (read.interval_s, read.timeout_s, read.start_interval_s) == (0.1, 0.1, 0.1)


def test_without_times_dockers_defaults_hold() -> None:
    check = complete(HealthCheck(test=("CMD", "a", "b")), None, ())
    assert check is not None
    assert check.command == ("a", "b")
    times = (check.interval_s, check.timeout_s, check.start_period_s, check.start_interval_s)
    assert times == (30.0, 30.0, 0.0, 5.0)
    assert (check.retries, check.on_failure) == (3, "event")


def test_the_values_of_a_job_win_one_by_one() -> None:
    image = HealthCheck(test=("CMD", "image"), interval_s=1.0, timeout_s=2.0, retries=9)
    check = complete(HealthCheck(timeout_s=4.0, on_failure="restart"), image, ())
    assert check is not None
    assert (check.command, check.interval_s, check.timeout_s) == (("image",), 1.0, 4.0)
    assert (check.retries, check.on_failure) == (9, "restart")


@pytest.mark.parametrize(
    ("test", "shell", "command"),
    [
        (("CMD-SHELL", "a b"), (), ("/bin/sh", "-c", "a b")),
        (("CMD-SHELL", "a b"), ("/bin/bash", "-ec"), ("/bin/bash", "-ec", "a b")),
        (("CMD", "a"), ("/bin/bash", "-ec"), ("a",)),
    ],
)
def test_a_line_runs_in_the_shell_of_the_image(
    test: tuple[str, ...], shell: tuple[str, ...], command: tuple[str, ...]
) -> None:
    check = complete(None, HealthCheck(test=test), shell)
    assert check is not None
    assert check.command == command


@pytest.mark.parametrize("test", [("NONE",), ("CMD",), ("CMD-SHELL",), ("what", "is this")])
def test_a_test_without_a_command_is_no_check(test: tuple[str, ...]) -> None:
    assert complete(None, HealthCheck(test=test), ()) is None


def test_a_job_can_disable_the_check_of_an_image() -> None:
    image = HealthCheck(test=("CMD", "image"))
    assert complete(HealthCheck(test=("NONE",)), image, ()) is None
