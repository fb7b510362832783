"""Where the launcher's objects lie before the first fork, so that its workers copy few pages.

A worker that calls a function or makes an object writes to their pages, and each page written is a
copy of its own. After a start the code of our functions lies all over Python's memory, between
what the imports left and by sizes, and new objects go into the gaps in between. Put together, small
code in one size, and with the gaps filled, the same work writes to fewer pages. What a worker calls
lies apart from what it never does, and what it makes begins on pages that are written to anyhow.
ARCHITECTURE.md has the figures.
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

_ROOMS = ("proto", "workers", "__main__")
_STEP, _LARGEST = 16, 512
"""Sizes of CPython's allocator for small objects (Objects/obmalloc.c)."""
_BYTES_OVERHEAD, _SMALLEST_BYTES, _FLOAT = 33, 48, 32
_POOL, _POOL_HEADER = 16 * 1024, 48
"""It hands out blocks of one size from such a piece; its header is written to each time, so its
first page, where the header is, is the best place for what a worker makes."""
_INSTRUCTION = 2
"""Bytes of an instruction of CPython's."""
_NEIGHBOURS = 3
"""So many objects, each right behind the one before, from the header on: a pool that was empty."""
_MOST = 4000


def fill_gaps() -> list[object]:
    """Objects in the gaps between small objects; as long as they are kept, the gaps are filled."""
    kept: list[object] = []
    for size in range(_STEP, _LARGEST + 1, _STEP):
        last = row = 0
        for number in range(_MOST):
            made = _object(size, number)
            kept.append(made)
            if id(made) % _POOL == _POOL_HEADER:
                row = 1
            else:
                row = row + 1 if row and id(made) - last == size else 0
            last = id(made)
            if row == _NEIGHBOURS:
                break
    return kept


def _object(size: int, number: int) -> object:
    """A new object that takes so many bytes and refers to nothing."""
    if size >= _SMALLEST_BYTES:
        return bytes(size - _BYTES_OVERHEAD)
    return float(number) if size == _FLOAT else object()


def calls_of(work: Callable[[], None]) -> set[CodeType]:
    """The code of all functions that run meanwhile."""
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
    """Has our functions run copies of their code, made one after the other; returns the originals.

    They are to be kept: their places would be the next gaps. Those of `first` come first.
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
        if name.partition(".")[0] in _ROOMS:
            for value in list(vars(module).values()):
                yield from _functions(value, module.__name__)


def _functions(value: object, module: str) -> Iterator[FunctionType]:
    """The functions that a value of a module is made of, if they are the module's own."""
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
    """A copy; what is small is filled up, with instructions that nothing gets to.

    Small objects of one size lie together, apart from those of others: so they get one size.
    """
    inner = tuple(_copy(c) if isinstance(c, CodeType) else c for c in code.co_consts)
    text = code.co_code
    spare = _LARGEST - code.__sizeof__()
    if spare > 0:
        text += text[-_INSTRUCTION:] * (spare // _INSTRUCTION)
    return code.replace(co_consts=inner, co_code=text)
