"""Layout of the launcher's heap before the first fork, so that workers copy few pages.

A worker that calls a function or creates an object writes to the object's page, and each written
page becomes a private copy. After the imports the code of our functions is spread over Python's
heap, and new objects go into the gaps between. This module gathers the code in one place, with all
small code in one size, and fills the gaps. The code that workers call lies apart from other code,
and new objects begin on pages that are written in any case. Then the same work writes fewer pages.

Measured with 50 tasks, against a limit of 1.30 MB (other machines have other figures):

    heap layout    memory of a worker (PSS)
    with           1.25 MB
    without        1.47 MB
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType, FunctionType
else:
    FunctionType = type(lambda: None)
    CodeType = type((lambda: None).__code__)

_PACKAGES = ("proto", "workers", "__main__")
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
_LARGEST_GAP, _CHUNK_HEADER = 16 * 1024, 64
_LARGE_NEIGHBOURS = 2
"""So many objects behind another one were taken from the end of the heap, not from gaps."""
_MOST_LARGE = 200


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
    objects of a worker lie one behind the other. Ten real tasks: 1120 KB of unshared memory for a
    worker, 1148 KB without. The objects themselves cost each of 50 workers 8 KB of shared memory.
    """
    kept: list[object] = []
    size = _LARGEST_GAP
    while size > _LARGEST:
        last = row = 0
        for _ in range(_MOST_LARGE):
            created = bytes(size - _BYTES_OVERHEAD)
            kept.append(created)
            row = row + 1 if last < id(created) < last + size + _CHUNK_HEADER else 0
            last = id(created)
            if row == _LARGE_NEIGHBOURS:
                break
        size = size * 7 // 8
    return kept


def _object(size: int, number: int) -> object:
    """Creates an object of the given size, without references."""
    if size >= _SMALLEST_BYTES:
        return bytes(size - _BYTES_OVERHEAD)
    return float(number) if size == _FLOAT else object()


def calls_of(work: Callable[[], None]) -> set[CodeType]:
    """Returns the code of all functions that run during `work`."""
    used: set[CodeType] = set()

    def called(frame: FrameType, _event: str, _argument: object) -> None:
        used.add(frame.f_code)

    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(None)
    return used


def gather_code(first: set[CodeType]) -> list[object]:
    """Replaces the code of all our functions by copies, which lie one behind the other.

    Args:
        first: the code that workers call; the copies of this code come first.

    Returns:
        The original code, to keep: the space of the originals would be the next gaps.
    """
    functions = list(_all_functions())
    used = [function for function in functions if function.__code__ in first]
    others = [function for function in functions if function.__code__ not in first]
    originals: list[object] = [function.__code__ for function in functions]
    for function in used + others:
        function.__code__ = _copy(function.__code__)
    return originals


def _all_functions() -> Iterator[FunctionType]:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _PACKAGES:
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


def _copy(code: CodeType) -> CodeType:
    """Copies code, and fills small code up with instructions that never run.

    The allocator keeps small objects of one size together. So all small code gets one size.
    """
    inner = tuple(_copy(c) if isinstance(c, CodeType) else c for c in code.co_consts)
    text = code.co_code
    spare = _LARGEST - code.__sizeof__()
    if spare > 0:
        text += text[-_INSTRUCTION:] * (spare // _INSTRUCTION)
    return code.replace(co_consts=inner, co_code=text)
