"""Log lines: each record becomes a line of JSON which go-plugin's parser survives."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.json_logging import REDACTED, HclogFormatter, StderrHandler
from tests.support.plugin.plugin_process import checked_hclog_line
from tests.support.waiting import slowed

_FORMATTER = HclogFormatter()


class _Broken:
    def __str__(self) -> str:
        raise RuntimeError("no words")


def _raised(text: str) -> Any:
    try:
        _raise(text)
    except ValueError:
        return sys.exc_info()


def _raise(text: str) -> None:
    raise ValueError(text)


def _line(message: object = "hello", *args: object, **extra: Any) -> dict[str, Any]:
    record = logging.makeLogRecord(
        {"name": "actors", "levelno": logging.INFO, "msg": message, "args": args, **extra}
    )
    line = _FORMATTER.format(record)
    assert "\n" not in line
    assert line.isascii()
    return checked_hclog_line(line)


def test_a_plain_record_has_its_fields() -> None:
    fields = _line("%s started", "web", task_id="a/b", count=3, share=0.5, ok=True, created=0.25)
    assert fields == {
        "@level": "info",
        "@message": "web started",
        "@module": "actors",
        "@timestamp": "1970-01-01T00:00:00.250000Z",
        "task_id": "a/b",
        "count": 3,
        "share": 0.5,
        "ok": True,
    }


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (logging.CRITICAL, "error"),
        (logging.ERROR, "error"),
        (logging.WARNING, "warn"),
        (logging.INFO, "info"),
        (logging.DEBUG, "debug"),
        (5, "trace"),
        (0, "trace"),
        (99, "error"),
        ("WARNING", "trace"),
    ],
)
def test_levels_are_those_that_hclog_knows(level: object, name: str) -> None:
    assert _line(levelno=level)["@level"] == name


@pytest.mark.parametrize(
    "message",
    [
        None,
        7,
        b"bytes",
        {"a": 1},
        ["list"],
        _Broken(),
        "two\nlines\r\n",
        "\0\x1b[31m",
        "\ud800",
        "%d",
    ],
)
def test_hostile_messages_become_text(message: object) -> None:
    assert isinstance(_line(message, 1)["@message"], str)
    assert isinstance(_line(message)["@message"], str)


@pytest.mark.parametrize("size", [20_000, 1_000_000])
@pytest.mark.parametrize("character", ["x", "ä", "\N{PILE OF POO}", "\n", "\0"])
def test_a_line_stays_below_what_go_plugin_takes(size: int, character: str) -> None:
    fields = _line(character * size, detail=character * size, more=character * size)
    assert fields["@message"].endswith("…")


def test_a_thousand_fields_still_make_one_line() -> None:
    fields = _line(**{f"key{number}": "x" * 500 for number in range(1000)})
    assert fields["@message"] == "hello"
    assert fields["cut"] is True


@pytest.mark.parametrize("created", [float("nan"), float("inf"), -1.0, 1e20, "now", None])
def test_a_timestamp_is_always_one(created: object) -> None:
    assert _line(created=created)["@timestamp"].startswith("20")


@given(st.floats(0, 2**33))
def test_a_timestamp_has_exactly_six_digits(created: float) -> None:
    _line(created=created)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 10**400, 2**64, -(2**70), None, [1], {"a": b"b"}, _Broken()],
)
def test_values_that_are_no_json_become_text(value: object) -> None:
    assert isinstance(_line(field=value)["field"], str)
    assert isinstance(_line(field=10**5000)["field"], str)


def test_nobody_can_replace_the_fields_of_hclog() -> None:
    fields = _line(**{"@level": 7, "@message": None, "@timestamp": "x"})
    assert fields["@message"] == "hello"


@pytest.mark.parametrize(
    "key", ["password", "Password", "auth", "registry_token", "env", "client_secret"]
)
def test_secrets_by_their_key_are_redacted(key: str) -> None:
    assert _line(**{key: "hunter2"})[key] == REDACTED


@pytest.mark.parametrize(
    "text",
    [
        "GET https://user:hunter2@registry.example.com/v2/",
        "Authorization: Bearer hunter2",
        '{"password": "hunter2"}',
        "password=hunter2",
    ],
)
def test_secrets_in_words_are_redacted(text: str) -> None:
    assert "hunter2" not in json.dumps(_line(text, detail=text))
    assert "hunter2" not in json.dumps(_line(exc_info=_raised(text)))


def test_the_image_of_a_refused_pull_is_no_secret() -> None:
    why = "repository does not exist or may require authorization: quay.io/x:1 at quay.io"
    assert _line(why=why)["why"] == why


def test_an_exception_is_one_field_with_its_end_kept() -> None:
    fields = _line(exc_info=_raised("x" * 20_000 + "the end"))
    assert fields["exception"].startswith("…")
    assert fields["exception"].endswith("the end")


@pytest.mark.parametrize("told", [True, (), (None, None, None), "x", 7])
def test_exception_fields_that_are_none_are_no_trouble(told: object) -> None:
    assert _line(exc_info=told)["@message"] == "hello"


@given(
    st.text(),
    st.dictionaries(
        st.text(min_size=1),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    ),
)
def test_any_record_is_one_line(message: str, extra: dict[str, Any]) -> None:
    record = logging.makeLogRecord({"msg": message})
    for key, value in extra.items():
        if key not in vars(record):
            vars(record)[key] = value
    checked_hclog_line(_FORMATTER.format(record))


class _Stderr:
    """Lines that a handler has written to standard error."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self._text = ""

    def messages(self) -> list[str]:
        """Returns the messages of all lines."""
        self._text += self._capture.readouterr().err
        return [json.loads(line)["@message"] for line in self._text.splitlines()]

    async def has(self, *messages: str) -> None:
        """Waits until exactly these messages are written."""
        async with asyncio.timeout(slowed(10)):
            while self.messages() != [*messages]:
                await asyncio.sleep(0.001)


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> _Stderr:
    """Returns the lines on standard error."""
    return _Stderr(capsys)


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """Yields a logger with a handler of its own."""
    logger = logging.Logger("together")  # noqa: LOG001 - unknown to all others
    handler = StderrHandler()
    handler.setFormatter(HclogFormatter())
    logger.addHandler(handler)
    yield logger
    handler.close()


def _handler(log: logging.Logger) -> StderrHandler:
    (handler,) = log.handlers
    assert isinstance(handler, StderrHandler)
    return handler


def test_a_line_is_written_at_once_without_a_loop(log: logging.Logger, stderr: _Stderr) -> None:
    log.debug("first")
    assert stderr.messages() == ["first"]


async def test_lines_wait_for_each_other_and_are_written_in_their_order(
    log: logging.Logger, stderr: _Stderr
) -> None:
    _handler(log).delay(asyncio.get_running_loop())
    log.debug("first")
    await asyncio.to_thread(log.info, "second")
    assert not stderr.messages()
    await stderr.has("first", "second")
    log.debug("third")
    await stderr.has("first", "second", "third")


async def test_a_line_of_a_thread_is_written_without_any_other_line(
    log: logging.Logger, stderr: _Stderr
) -> None:
    _handler(log).delay(asyncio.get_running_loop())
    await asyncio.to_thread(log.info, "alone")
    await stderr.has("alone")


async def test_a_warning_is_written_at_once_behind_the_lines_before(
    log: logging.Logger, stderr: _Stderr
) -> None:
    _handler(log).delay(asyncio.get_running_loop())
    log.debug("first")
    log.warning("second")
    assert stderr.messages() == ["first", "second"]


async def test_a_flush_writes_all_lines(log: logging.Logger, stderr: _Stderr) -> None:
    _handler(log).delay(asyncio.get_running_loop())
    log.debug("last words")
    _handler(log).flush()
    assert stderr.messages() == ["last words"]


def test_a_line_is_written_at_once_when_the_loop_has_ended(
    log: logging.Logger, stderr: _Stderr
) -> None:
    loop = asyncio.new_event_loop()
    _handler(log).delay(loop)
    loop.close()
    log.debug("late")
    assert stderr.messages() == ["late"]
