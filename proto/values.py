"""Frozen dataclasses that cost an import a third of the standard library's.

The standard library compiles six functions for each frozen class, 0.5 ms of CPU (Python 3.11). The
plugin has 150 such classes, the dev host 70. Here only `__init__` is compiled for a class. All
classes share the other functions, which behave as the standard library's.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # For type checkers the decorator is the standard library's.
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - exported
else:

    def dataclass(*, frozen: bool, slots: bool, kw_only: bool = False) -> Callable[[type], type]:
        """Returns the decorator of a frozen class with slots, without InitVar."""
        if not (frozen and slots):
            raise TypeError("use dataclasses.dataclass for a class that is not frozen with slots")
        return lambda cls: _frozen(cls, kw_only=kw_only)


_NO_VALUE = object()
_set = object.__setattr__


def _frozen(cls: type, *, kw_only: bool) -> type:
    own = vars(cls).keys()
    decorate = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)
    made: type = decorate(cls)
    _add(made, own, __init__=_init(made))
    _add(made, own, __repr__=_repr, __eq__=_eq, __hash__=_hash)
    _add(made, own, __setattr__=_setattr, __delattr__=_delattr)
    _add(made, own, __getstate__=_getstate, __setstate__=_setstate)
    return made


def _add(cls: type, own: Collection[str], **functions: Any) -> None:
    """Adds functions that the class does not define itself."""
    for name, function in functions.items():
        if name not in own:
            setattr(cls, name, function)


def _init(cls: Any) -> Any:
    """Compiles `__init__`, as the standard library does: a call must stay fast."""
    scope: dict[str, Any] = {"_set": _set, "_no_value": _NO_VALUE}
    positional, keywords, body = ["self"], list[str](), list[str]()
    for field in dataclasses.fields(cls):
        name, value, parameter = field.name, field.name, field.name
        if field.default_factory is not dataclasses.MISSING:
            scope[f"_make_{name}"] = field.default_factory
            parameter = f"{name}=_no_value"
            value = f"_make_{name}() if {name} is _no_value else {name}"
        elif field.default is not dataclasses.MISSING:
            scope[f"_default_{name}"] = field.default
            parameter = f"{name}=_default_{name}"
        (keywords if field.kw_only else positional).append(parameter)
        body.append(f" _set(self, {name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        body.append(" self.__post_init__()")
    star = ["*"] if keywords else []
    head = f"def __init__({', '.join([*positional, *star, *keywords])}):\n"
    exec(head + ("\n".join(body) or " pass"), scope)  # noqa: S102 - names of our own classes
    function = scope["__init__"]
    function.__qualname__ = f"{cls.__qualname__}.__init__"
    function.__module__ = cls.__module__
    return function


@functools.cache
def _compared(cls: Any) -> Callable[[Any], object]:
    """Returns a function that reads the compared fields of an instance."""
    names = [field.name for field in dataclasses.fields(cls) if field.compare]
    return attrgetter(*names) if names else lambda _: None


def _eq(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    values = _compared(self.__class__)
    return values(self) == values(other)


def _hash(self: Any) -> int:
    return hash(_compared(self.__class__)(self))


def _repr(self: Any) -> str:
    shown = (field.name for field in dataclasses.fields(self) if field.repr)
    fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
    return f"{type(self).__qualname__}({fields})"


def _setattr(_self: object, name: str, _value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(_self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(self: Any) -> list[object]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _setstate(self: Any, state: list[object]) -> None:
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        _set(self, field.name, value)
