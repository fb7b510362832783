"""Tests of the `logging` block: names of Docker and Podman, limits, tags, and refusals."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from actors.model.settings import LogOptions
from plugin import options
from proto.errors import DriverError


def read(**block: Any) -> LogOptions | None:
    """Reads the block of a task."""
    return options.task_options(msgpack.packb({"image": "a", "logging": block})).logging


def test_without_the_block_nothing_is_chosen() -> None:
    assert options.task_options(msgpack.packb({"image": "a"})).logging is None
    assert read() == LogOptions(type="files")


@pytest.mark.parametrize("word", ["json-file", "local", "k8s-file", "nomad", "files"])
@pytest.mark.parametrize("key", ["type", "driver"])
def test_each_name_of_log_files_is_known(key: str, word: str) -> None:
    assert read(**{key: word}) == LogOptions(type="files")


def test_the_numbers_of_docker_are_read() -> None:
    config = [{"max-file": "3", "max-size": "20m", "tag": "x"}]
    expected = LogOptions(type="files", max_files=3, max_file_bytes=20 << 20, tag="x")
    assert read(type="json-file", config=config) == expected
    assert read(config=config) == expected, "Docker's default is json-file"


def test_podmans_names_are_read() -> None:
    assert read(driver="journald", options=[{"tag": "redis"}]) == LogOptions(
        type="journald", tag="redis"
    )
    assert read(driver="none") == LogOptions(type="none")


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ({"type": "fluentd"}, "logging.type: 'fluentd' is not supported: use one of json-file"),
        ({"driver": "syslog"}, "logging.driver: 'syslog' is not supported"),
        ({"config": {"max-file": "0"}}, "logging.config.max-file: '0' is not a number from 1"),
        ({"config": {"max-file": "x"}}, "logging.config.max-file: 'x' is not a number"),
        ({"config": {"max-size": "1k"}}, "logging.config.max-size: '1k' is not between 64K and 1T"),
        ({"config": {"max-size": "much"}}, "logging.config.max-size: invalid size"),
        ({"config": {"labels": "a"}}, "logging.config.labels: no such option, known: max-file"),
        ({"config": {"tag": "{{.Up}}"}}, "logging.config.tag: '{{.Up}}' has an unknown field"),
        ({"config": {"tag": "{{"}}, "has an unknown field, known: {{.Name}}, {{.ID}}"),
        ({"config": {"tag": "a\nPRIORITY=0"}}, "logging.config.tag: "),
        ({"config": {"tag": "x" * 300}}, "is longer than 256 bytes"),
        ({"kind": "none"}, "logging.kind: no such option"),
    ],
)
def test_a_wrong_block_is_refused_by_name(block: dict[str, Any], problem: str) -> None:
    with pytest.raises(DriverError) as caught:
        read(**block)
    assert problem in str(caught.value)
