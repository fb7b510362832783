"""SIGUSR1 makes the plugin print the stacks of all threads and of all asyncio tasks.

The process goes on as before. Threads and tasks are printed in different ways:

- Threads: faulthandler writes plain text to stderr from inside the C signal handler. So the dump
  works while the event loop is stuck, and while a thread keeps the interpreter lock. go-plugin logs
  a line that is not JSON at DEBUG.
- Tasks: the event loop logs one INFO record for each task. A stuck event loop logs none.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import signal
from types import FrameType
from typing import Any

_FRAMES = ("cr_frame", "gi_frame", "ag_frame")
_AWAITED = ("cr_await", "gi_yieldfrom", "ag_await")
"""Attributes of coroutines, generators and asynchronous generators, in this order."""
_MAX_DEPTH = 100
_log = logging.getLogger("plugin.stack_dump")


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Registers the handlers of SIGUSR1; `loop` must be the loop of the main thread."""
    loop.add_signal_handler(signal.SIGUSR1, log_tasks, loop)
    # The order matters: `chain` calls the handler registered before, which wakes the event loop.
    faulthandler.register(signal.SIGUSR1, all_threads=True, chain=True)


def log_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Logs the stack of each task of `loop` that has not ended."""
    for task in asyncio.all_tasks(loop):
        _log.info("asyncio task", extra={"asyncio_task": task.get_name(), "stack": stack_of(task)})


def stack_of(task: asyncio.Task[Any]) -> str:
    """Returns a line for each coroutine that `task` stands in, the outermost first.

    `Task.get_stack` gives the outermost frame of a suspended task only, so the chain of awaited
    objects is followed by hand. The last line is the type of the object that the task waits for.
    No value is printed: a value may be a secret.
    """
    lines: list[str] = []
    awaited: object = task.get_coro()
    while awaited is not None and len(lines) < _MAX_DEPTH:
        frame = _first(awaited, _FRAMES)
        if not isinstance(frame, FrameType):
            lines.append(type(awaited).__name__)
            break
        code = frame.f_code
        lines.append(f"{code.co_filename}:{frame.f_lineno} {code.co_qualname}")
        awaited = _first(awaited, _AWAITED)
    return "\n".join(lines)


def _first(value: object, names: tuple[str, ...]) -> object:
    return next((part for name in names if (part := getattr(value, name, None))), None)
