"""Calls that must not fail and streams that must not end, whatever the driver below them does.

Nomad takes any error of WaitTask for the end of the task (client/allocrunner/taskrunner), and
re-opens Fingerprint and TaskEvents streams without a pause, thousands of times a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from proto.errors import Code, DriverError

Item = TypeVar("Item")
Message = TypeVar("Message")
Result = TypeVar("Result")

PAUSE_S = 5.0
_RETRY_S = 1.0
# What asking again cannot change.
_FINAL = frozenset({Code.NOT_FOUND, Code.INVALID})
_log = logging.getLogger(__name__)


async def insist(attempt: Callable[[], Awaitable[Result]], what: str) -> Result:
    """The result of a call that is tried until it gives one.

    Raises:
        DriverError: code NOT_FOUND or INVALID; other failures are logged and tried again.
    """
    while True:
        try:
            return await attempt()
        except DriverError as error:
            if error.code in _FINAL:
                raise
            _log.warning("tried again", extra={"call": what, "reason": str(error)})
        except Exception:  # noqa: BLE001 - see the module
            _log.exception("unexpected failure, tried again", extra={"call": what})
        await asyncio.sleep(_RETRY_S)


async def endless(
    stream: Callable[[], AsyncGenerator[Item, None]],
    convert: Callable[[Item], Message],
    what: str,
    *,
    on_failure: Callable[[Exception], Message] | None = None,
) -> AsyncGenerator[Message, None]:
    """The converted items of a stream, which is opened again with a pause when it ends or fails.

    Args:
        stream: opens it.
        convert: makes the message of an item.
        what: names the stream in the log.
        on_failure: makes a message that tells of a failure.
    """
    while True:
        failed: Message | None = None
        try:
            async with aclosing(stream()) as items:
                async for item in items:
                    yield convert(item)
        except Exception as error:  # noqa: BLE001
            _log.exception("a stream failed, opened again", extra={"stream": what})
            failed = on_failure(error) if on_failure else None
        if failed is not None:
            yield failed
        await asyncio.sleep(PAUSE_S)


async def while_it_lasts(
    stream: Callable[[], AsyncGenerator[Item, None]],
    convert: Callable[[Item], Message],
    what: str,
) -> AsyncGenerator[Message, None]:
    """The converted items of a stream, then a pause; a failure is an end like any other.

    For TaskStats: Nomad logs an error of it once a second for as long as it knows the task.
    """
    try:
        async with aclosing(stream()) as items:
            async for item in items:
                yield convert(item)
    except DriverError as error:
        _log.debug("a stream ended", extra={"stream": what, "reason": str(error)})
    except Exception:  # noqa: BLE001
        _log.exception("a stream failed", extra={"stream": what})
    await asyncio.sleep(PAUSE_S)
