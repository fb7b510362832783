"""Tests of the `healthcheck` block: forms of a test, times, and refusals."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from actors.model.settings import HealthCheck
from plugin import options
from proto.errors import DriverError


def read(**block: Any) -> HealthCheck | None:
    """Reads the block of a task."""
    return options.task_options(msgpack.packb({"image": "a", "healthcheck": block})).healthcheck


@pytest.mark.parametrize(
    ("block", "test"),
    [
        ({"test": "curl -f localhost"}, ("CMD-SHELL", "curl -f localhost")),
        ({"test": ["CMD-SHELL", "a || exit 1"]}, ("CMD-SHELL", "a || exit 1")),
        ({"test": ["CMD", "a", "", "b"]}, ("CMD", "a", "", "b")),
        ({"test": ["NONE"]}, ("NONE",)),
        ({"test": []}, ()),
        ({"test": ""}, ()),
        ({"command": "/a", "args": ["b", "c"]}, ("CMD", "/a", "b", "c")),
        ({"disable": True, "test": "x"}, ("NONE",)),
        ({"interval": "5s"}, ()),
    ],
)
def test_each_form_of_a_test_is_read(block: dict[str, Any], test: tuple[str, ...]) -> None:
    check = read(**block)
    assert check is not None
    assert check.test == test


def test_times_and_numbers_are_read() -> None:
    check = read(
        test="x",
        interval="10s",
        timeout="1500ms",
        start_period="1m",
        start_interval="1s",
        retries=5,
        on_failure="restart",
        kill_timeout="0s",
    )
    assert check == HealthCheck(
        test=("CMD-SHELL", "x"),
        interval_s=10.0,
        timeout_s=1.5,
        start_period_s=60.0,
        start_interval_s=1.0,
        retries=5,
        on_failure="restart",
        kill_timeout_s=0.0,
    )


def test_without_the_block_nothing_is_chosen() -> None:
    assert options.task_options(msgpack.packb({"image": "a"})).healthcheck is None


@pytest.mark.parametrize(("off", "test"), [(True, ("NONE",)), (False, None)])
def test_the_block_of_the_docker_driver_disables_the_image_check(
    off: bool,
    test: tuple[str, ...] | None,
) -> None:
    packed = msgpack.packb({"image": "a", "healthchecks": {"disable": off}})
    task = options.task_options(packed)
    assert (task.healthcheck and task.healthcheck.test) == test
    assert task.warnings == ()


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ({"test": ["curl", "localhost"]}, "healthcheck.test: ['curl', 'localhost'] is no test"),
        ({"test": ["CMD"]}, "is no test"),
        ({"test": ["CMD-SHELL", "a", "b"]}, "is no test"),
        ({"test": 5}, "is not a list of strings"),
        ({"test": "a", "command": "b"}, "command and test are mutually exclusive"),
        ({"args": ["b"]}, "args has no effect without command"),
        ({"interval": "1ms"}, 'healthcheck.interval: "1ms" is less than 0.1s'),
        ({"timeout": "soon"}, 'healthcheck.timeout: invalid duration "soon"'),
        ({"retries": 0}, "healthcheck.retries: 0 is not between"),
        ({"on_failure": "kill"}, "healthcheck.on_failure: 'kill' is not one of event, restart"),
        ({"test": ["CMD", *"x" * 250_000]}, "healthcheck: the test is longer than 1 MiB as JSON"),
        ({"command": "x" * 4096}, "healthcheck: the program is longer than 4095 bytes"),
        ({"tests": "x"}, "healthcheck.tests: no such option, did you mean"),
    ],
)
def test_a_wrong_block_is_refused_by_name(block: dict[str, Any], problem: str) -> None:
    with pytest.raises(DriverError) as refused:
        read(**block)
    assert problem in str(refused.value)
