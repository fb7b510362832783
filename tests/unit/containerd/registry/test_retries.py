"""The length of a pull's waits for a registry, and the reports of the waits."""

from __future__ import annotations

import time

import pytest

from containerd.registry.retries import Retries, Transient, clock_lead, retry_after
from proto.errors import Code, DriverError

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
LATER = "Sun, 06 Nov 1994 08:49:57 GMT"


def transient(seconds: float | None = None, brief: str = "registry r answered 429") -> Transient:
    """Builds a failure worth a retry."""
    error = Transient(brief, recoverable=True, code=Code.UNAVAILABLE)
    error.retry_after_s = seconds
    return error


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Returns the list of all pauses; no pause takes time."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    monkeypatch.setattr("secrets.randbelow", lambda _: 0)
    return made


def retries(seconds: float = 1000, told: list[str] | None = None, *, waits: bool = True) -> Retries:
    """Returns the retries of a pull with so many seconds left."""
    texts: list[str] = [] if told is None else told
    return Retries(time.monotonic() + seconds, texts.append, waits=waits)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "٣"}, None),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": " 7 "}, 7),
        ({"Retry-After": "9" * 400}, 86400),
        ({"Retry-After": LATER, "Date": DATE}, 20),
        ({"Retry-After": DATE, "Date": LATER}, 0),
        ({"Retry-After": DATE}, 0),
        ({"Retry-After": "Sunday, 06-Nov-94 08:49:57 GMT", "Date": DATE}, 20),
        ({"Retry-After": "Sun Nov  6 08:49:57 1994", "Date": DATE}, 20),
        ({"Retry-After": "Sun, 99 Nov 1994 08:49:57 GMT"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_point_in_time(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers) == seconds


def test_clocks_are_compared_where_there_is_a_date() -> None:
    assert clock_lead({}) is None
    assert clock_lead({"Date": "today"}) is None
    lead = clock_lead({"Date": DATE})
    assert lead is not None
    assert lead > 0


def test_pauses_grow_and_end_and_begin_anew_when_something_came(paused: list[float]) -> None:
    rounds = retries().rounds()
    while rounds.wait([transient()]):
        pass
    assert paused == [1, 2, 4, 8, 16]
    rounds.begin_anew()
    assert rounds.wait([transient()])
    assert paused[-1] == 1


def test_what_a_registry_asks_for_is_waited_as_often_as_it_asks(paused: list[float]) -> None:
    rounds = retries().rounds()
    for _ in range(20):
        assert rounds.wait([transient(30)])
    assert paused == [30] * 20


def test_at_once_is_no_time(paused: list[float]) -> None:
    rounds = retries().rounds()
    while rounds.wait([transient(0)]):
        pass
    assert paused == [1, 2, 4, 8, 16]


def test_the_one_that_asks_for_least_decides(paused: list[float]) -> None:
    assert retries().rounds().wait([transient(60), transient(5), transient()])
    assert paused == [5]


def test_no_wait_goes_beyond_the_pulls_time_and_that_is_told(paused: list[float]) -> None:
    error = transient(60)
    assert not retries(10).rounds().wait([error])
    assert error.details == "the registry asks for a pause of 60 s"
    assert not retries(0.5).rounds().wait([transient()])
    assert not retries(waits=False).rounds().wait([transient()])
    assert paused == []


@pytest.mark.parametrize(
    "errors",
    [
        [],
        [DriverError("x", recoverable=True, code=Code.TIMEOUT)],
        [transient(), DriverError("x", code=Code.NOT_FOUND)],
    ],
    ids=["nobody", "silent", "the registry has spoken"],
)
def test_what_time_does_not_heal_is_not_waited_for(
    paused: list[float], errors: list[DriverError]
) -> None:
    assert not retries().rounds().wait(errors)
    assert paused == []


def test_a_registry_that_only_its_mirror_reaches_is_waited_for(paused: list[float]) -> None:
    away = DriverError("registry r cannot be read", recoverable=True, code=Code.UNAVAILABLE)
    assert retries().rounds().wait([transient(), away])
    assert paused == [1]


@pytest.mark.usefixtures("paused")
def test_waits_are_told_ever_more_rarely_and_once_for_all_layers() -> None:
    told: list[str] = []
    shared = retries(told=told)
    for digest in ("a", "b", "c"):
        shared.rounds().wait([transient(brief=f"registry r answered 429 for blob {digest}")])
    assert told == ["registry r answered 429 for blob a; the pull goes on in 1 s"]
    shared.rounds().wait([transient(brief="registry r cannot be read")])
    assert len(told) == 2
