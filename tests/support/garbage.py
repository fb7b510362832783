"""Errors that appear at a collection of garbage or in an event loop, reported at their own test.

An unclosed socket or transport is reported when the collector finds it, which may be many tests
later. So each test ends with a collection. What is alive then is frozen: the next collection looks
only at objects of the next test, and takes 2 ms instead of 60. The last test of a file has a
collection of all objects, also of those that its module's fixtures left.

Pytest calls `pytest_runtest_teardown` for all tests, because tests/conftest.py imports the hook.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import tracemalloc
from collections.abc import Generator, Iterator

import pytest


class AsyncioErrors(logging.Handler):
    """Texts of the errors that event loops have logged, such as a task that nobody holds."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._texts: list[str] = []
        logging.getLogger("asyncio").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the text alone: a record holds the objects that it is about."""
        self._texts.append(self.format(record))

    def take(self) -> list[str]:
        """Returns the texts since the last call."""
        texts, self._texts = self._texts, []
        return texts


def collect(*, everything: bool) -> list[str]:
    """Collects garbage and returns what its finalizers complained of.

    PYTHONTRACEMALLOC=25 adds where each object was made.
    """
    with _complaints() as found:
        if everything:
            gc.unfreeze()
        gc.collect()
        gc.freeze()
    return found


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    found: list[str] = []

    def keep(complaint: sys.UnraisableHookArgs) -> None:
        made = tracemalloc.get_object_traceback(complaint.object)
        lines = [f"{complaint.object!r}: {complaint.exc_value}", *(made.format() if made else ())]
        found.append("\n".join(lines))

    before, sys.unraisablehook = sys.unraisablehook, keep
    try:
        yield found
    finally:
        sys.unraisablehook = before


_asyncio_errors = AsyncioErrors()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, None, None]:
    """Fails a test that leaves an unclosed connection, or an error in an event loop."""
    yield
    left = collect(everything=nextitem is None or nextitem.path != item.path)
    left += _asyncio_errors.take()
    if left:
        pytest.fail("the test left:\n" + "\n".join(left), pytrace=False)
