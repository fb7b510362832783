"""Layout of the launcher's heap before the first fork, so that workers copy few pages.

A worker that calls a function or creates an object writes to the object's page, and each written
page becomes a private copy. After the imports the code of our functions is spread over Python's
heap, and new objects go into the gaps between. This module gathers functions and code in one place,
with all small code in one size, and fills the gaps. The functions that workers call until a task is
watched lie apart from other functions, and new objects begin on pages that are written in any case.
Then the same work writes fewer pages. ARCHITECTURE.md has the figures.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType, FunctionType, ModuleType
    from typing import Any
else:
    FunctionType = type(lambda: None)
    CodeType = type((lambda: None).__code__)

_PACKAGES = ("proto", "workers", "msgpack", "__main__")
_STEP, _LARGEST = 16, 512
"""Step and largest size of CPython's allocator for small objects (Objects/obmalloc.c)."""
_BYTES_OVERHEAD, _SMALLEST_BYTES, _FLOAT = 33, 48, 32
_POOL, _POOL_HEADER = 16 * 1024, 48
"""Sizes of a pool, from which the allocator gives blocks of one size, and of the pool's header.

Each allocation writes to the header. So the first page, with the header, is the best place for the
objects of a worker."""
_INSTRUCTION = 2
"""Bytes of a bytecode instruction of CPython."""
_NEIGHBOURS = 3
"""A pool with this many objects in a row, directly behind the header, was empty."""
_MOST = 4000
_LARGEST_GAP, _CHUNK_HEADER = 4 * 1024, 64
_LARGE_NEIGHBOURS = 2
"""So many objects behind another one were taken from the end of the heap, not from gaps."""
_MOST_LARGE = 200
_CACHED = 1032
"""The C library keeps seven freed pieces of each size up to this one apart, for the same size. Only
malloc() takes these pieces, calloc(), which serves `bytes(size)`, does not."""


def fill_gaps() -> list[object]:
    """Fills the gaps between small objects with objects, and returns the objects to keep."""
    kept: list[object] = []
    for size in range(_STEP, _LARGEST + 1, _STEP):
        last = row = 0
        for number in range(_MOST):
            created = _object(size, number)
            kept.append(created)
            if id(created) % _POOL == _POOL_HEADER:
                row = 1
            else:
                row = row + 1 if row and id(created) - last == size else 0
            last = id(created)
            if row == _NEIGHBOURS:
                break
    return kept


def fill_large_gaps() -> list[object]:
    """Fills the gaps between larger objects, as `fill_gaps` does, and returns the objects to keep.

    The C library gives memory for objects above the limit of CPython's allocator. Without gaps the
    objects of a worker lie one behind the other.
    """
    kept: list[object] = []
    size = _LARGEST_GAP
    while size > _LARGEST:
        last = row = 0
        for _ in range(_MOST_LARGE):
            created = b" " * (size - _BYTES_OVERHEAD)
            kept.append(created)
            row = row + 1 if last < id(created) < last + size + _CHUNK_HEADER else 0
            last = id(created)
            if row == _LARGE_NEIGHBOURS:
                break
        size = size * 7 // 8 if size > _CACHED else size - _STEP
    return kept


def _object(size: int, number: int) -> object:
    """Creates an object of the given size, without references."""
    if size >= _SMALLEST_BYTES:
        return bytes(size - _BYTES_OVERHEAD)
    return float(number) if size == _FLOAT else object()


def calls_of(work: Callable[[Callable[[], None]], None]) -> set[CodeType]:
    """Returns the code of all functions that run during `work`.

    Args:
        work: called with a function that ends the record early.
    """
    used: set[CodeType] = set()

    def called(frame: FrameType, _event: str, _argument: object) -> None:
        used.add(frame.f_code)

    def stop() -> None:
        sys.setprofile(None)

    sys.setprofile(called)
    try:
        work(stop)
    finally:
        stop()
    return used


def gather(first: set[CodeType]) -> list[object]:
    """Replaces our functions and their code by copies, which lie one behind the other.

    Each call writes to the reference counts of a function and of the function's code.

    Args:
        first: the code that workers call; the copies of this code come first.

    Returns:
        The originals, to keep: the space of the originals would be the next gaps.
    """
    names = {name for code in first for name in code.co_names}
    functions = sorted(set(_all_functions()), key=lambda function: _rank(function, first, names))
    originals = [(function, function.__code__) for function in functions]
    changes = [_padding(code) for _, code in originals]
    for (function, code), change in zip(originals, changes, strict=True):
        function.__code__ = code.replace(**change)
    copies = {function: _copy(function) for function in functions}
    for module in _modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, FunctionType) and value in copies:
                setattr(module, name, copies[value])
            elif isinstance(value, type) and value.__module__ == module.__name__:
                _replace_methods(value, copies)
    return [originals, changes]


def _rank(function: FunctionType, first: set[CodeType], names: set[str]) -> tuple[int, str, int]:
    """Returns the place in the order: functions called, functions named as callbacks, the rest."""
    code = function.__code__
    rank = 0 if code in first else 1 if function.__name__ in names else 2
    return rank, code.co_filename, code.co_firstlineno


def _copy(function: FunctionType) -> FunctionType:
    copy = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__qualname__ = function.__qualname__
    copy.__annotations__ = function.__annotations__
    return copy


def _replace_methods(owner: type, copies: dict[FunctionType, FunctionType]) -> None:
    for name, value in list(vars(owner).items()):
        if isinstance(value, FunctionType) and value in copies:
            setattr(owner, name, copies[value])
        elif isinstance(value, staticmethod | classmethod) and value.__func__ in copies:
            setattr(owner, name, type(value)(copies[value.__func__]))
        elif isinstance(value, property) and value.fget in copies:
            setattr(owner, name, value.getter(copies[value.fget]))


def _modules() -> list[ModuleType]:
    return [
        module for name, module in list(sys.modules.items()) if name.partition(".")[0] in _PACKAGES
    ]


def _all_functions() -> Iterator[FunctionType]:
    for module in _modules():
        for value in list(vars(module).values()):
            yield from _functions(value, module.__name__)


def _functions(value: object, module: str) -> Iterator[FunctionType]:
    """Yields the functions in a value of a module, if the module defines the value."""
    if getattr(value, "__module__", module) != module:
        return
    if isinstance(value, FunctionType):
        yield value
    elif isinstance(value, staticmethod | classmethod):
        yield from _functions(value.__func__, module)
    elif isinstance(value, property):
        yield from _functions(value.fget, module)
    elif isinstance(value, type):
        for inner in list(vars(value).values()):
            yield from _functions(inner, module)


def _padding(code: CodeType) -> dict[str, Any]:
    """Returns the changes for a copy of the code, with instructions that never run behind.

    The allocator keeps small objects of one size together. So all small code gets one size.
    """
    inner = tuple(
        constant.replace(**_padding(constant)) if isinstance(constant, CodeType) else constant
        for constant in code.co_consts
    )
    text = code.co_code
    spare = _LARGEST - code.__sizeof__()
    if spare > 0:
        text += text[-_INSTRUCTION:] * (spare // _INSTRUCTION)
    return {"co_consts": inner, "co_code": text}
