"""Frozen classes of `proto.values` behave as the standard library's."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import field
from functools import partial
from typing import Any

import pytest

from proto.values import dataclass


def _classes(decorate: Callable[..., Any]) -> tuple[type, type, type]:
    """Returns three classes: all kinds of fields, a subclass with two more, positional fields."""

    @decorate(frozen=True, slots=True, kw_only=True)
    class Whole:
        """All kinds of fields."""

        name: str
        secret: str = field(default="s", repr=False)
        numbers: list[int] = field(default_factory=list)
        at: int = field(default=0, compare=False)

        @property
        def twice(self) -> str:
            return self.name * 2

    @decorate(frozen=True, slots=True, kw_only=True)
    class Part(Whole):
        """A subclass with a check."""

        more: int
        size: int = 1

        def __post_init__(self) -> None:
            if self.size < 0:
                raise ValueError(self.size)

        def __repr__(self) -> str:
            return "mine"

    @decorate(frozen=True, slots=True)
    class Pair:
        """Fields by position."""

        left: int
        right: int = 2

    return Whole, Part, Pair


Ours = _classes(dataclass)
Theirs = _classes(dataclasses.dataclass)
Stored = Ours[2]
Stored.__qualname__ = "Stored"


def _outcome(work: Callable[[], object]) -> object:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - compared
        return type(error), str(error)


CASES: dict[str, Callable[[Any, Any, Any], object]] = {
    "defaults": lambda whole, _, __: dataclasses.asdict(whole(name="n")),
    "values": lambda whole, _, __: dataclasses.asdict(whole(name="n", numbers=[1], at=3)),
    "a new list each": lambda whole, _, __: whole(name="n").numbers is whole(name="n").numbers,
    "text": lambda whole, _, __: repr(whole(name="n")).rpartition(".")[2],
    "own text": lambda _, part, __: repr(part(name="n", more=1)),
    "missing": lambda whole, _, __: whole(),
    "unknown": lambda whole, _, __: whole(name="n", other="n"),
    "by position": lambda whole, _, __: whole("n"),
    "positions": lambda _, __, pair: (pair(1) == pair(1, 2), pair(1) == pair(2), hash(pair(1, 2))),
    "too many": lambda _, __, pair: pair(1, 2, 3),
    "not compared": lambda whole, _, __: whole(name="n", at=1) == whole(name="n", at=2),
    "compared": lambda whole, _, __: whole(name="n", secret="a") == whole(name="n", secret="b"),
    "another class": lambda whole, part, _: whole(name="n") == part(name="n", more=1),
    "no hash": lambda whole, _, __: hash(whole(name="n")),
    "replaced": lambda _, part, __: dataclasses.asdict(
        dataclasses.replace(part(name="n", more=1), size=3)
    ),
    "checked": lambda _, part, __: part(name="n", more=1, size=-1),
    "order of fields": lambda _, part, __: [one.name for one in dataclasses.fields(part)],
    "copied": lambda whole, _, __: dataclasses.asdict(copy.deepcopy(whole(name="n", at=4))),
    "property": lambda whole, _, __: whole(name="n").twice,
    "no dictionary": lambda whole, _, __: hasattr(whole(name="n"), "__dict__"),
    "match": lambda whole, _, pair: (whole.__match_args__, pair.__match_args__),
}


@pytest.mark.parametrize("case", CASES)
def test_a_class_behaves_as_the_standard_librarys(case: str) -> None:
    ours, theirs = (_outcome(partial(CASES[case], *classes)) for classes in (Ours, Theirs))
    assert ours == theirs


def test_an_instance_can_be_stored() -> None:
    stored = Stored(5)
    assert pickle.loads(pickle.dumps(stored)) == stored  # noqa: S301 - our own bytes


def test_a_class_that_can_change_is_refused() -> None:
    with pytest.raises(TypeError, match="is not frozen"):
        dataclass(frozen=False, slots=True)
