"""Waits for a condition with a deadline, in the place of sleep.

SLOWNESS in the environment multiplies all deadlines of tests, for a slow machine.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_PAUSE_S = 0.01
_SLOWNESS = float(os.environ.get("SLOWNESS", "1"))


def slowed(timeout_s: float) -> float:
    """Returns the seconds of a deadline on this machine."""
    return timeout_s * _SLOWNESS


def wait_until(
    condition: Callable[[], T | None],
    timeout_s: float,
    message: str | Callable[[], str] = "condition",
) -> T:
    """Returns the first true value of `condition`; raises AssertionError at the deadline."""
    timeout_s = slowed(timeout_s)
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            text = message if isinstance(message, str) else message()
            raise AssertionError(f"not within {timeout_s} s: {text}")
        pause.wait(_PAUSE_S)


async def until(
    condition: Callable[[], T | None],
    timeout_s: float,
    message: str | Callable[[], str] = "condition",
) -> T:
    """Waits as `wait_until` does, in a coroutine."""
    timeout_s = slowed(timeout_s)
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            text = message if isinstance(message, str) else message()
            raise AssertionError(f"not within {timeout_s} s: {text}")
        await asyncio.sleep(_PAUSE_S)
