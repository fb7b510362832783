"""Retries for calls that must not fail and streams that must not end.

Nomad takes any error of WaitTask for the end of the task (client/allocrunner/taskrunner). Nomad
opens ended Fingerprint and TaskEvents streams again without a pause, thousands of times a second.
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
# A retry cannot change the answer.
_FINAL = frozenset({Code.NOT_FOUND, Code.INVALID})
_log = logging.getLogger(__name__)


async def retry_until_answered(attempt: Callable[[], Awaitable[Result]], rpc: str) -> Result:
    """Calls `attempt` until the call succeeds, and returns the result.

    Args:
        attempt: makes one call.
        rpc: name of the call in the log.

    Raises:
        DriverError: code NOT_FOUND or INVALID; other failures are logged and retried after 1 s.
    """
    while True:
        try:
            return await attempt()
        except DriverError as error:
            if error.code in _FINAL:
                raise
            _log.warning("call failed, will be retried", extra={"rpc": rpc, "reason": str(error)})
        except Exception:  # noqa: BLE001 - Nomad takes any error for the end of the task
            _log.exception("call failed unexpectedly, will be retried", extra={"rpc": rpc})
        await asyncio.sleep(_RETRY_S)


async def reopen_forever(
    stream: Callable[[], AsyncGenerator[Item, None]],
    convert: Callable[[Item], Message],
    rpc: str,
    *,
    on_failure: Callable[[Exception], Message] | None = None,
) -> AsyncGenerator[Message, None]:
    """Yields the converted items of a stream; opens the stream again 5 s after its end.

    Args:
        stream: opens the stream.
        convert: converts an item into a message.
        rpc: name of the stream in the log.
        on_failure: converts a failure of the stream into a message.
    """
    while True:
        failure: Message | None = None
        try:
            async with aclosing(stream()) as items:
                async for item in items:
                    yield convert(item)
        except Exception as error:  # noqa: BLE001
            _log.exception("stream failed, will be opened again", extra={"rpc": rpc})
            failure = on_failure(error) if on_failure else None
        if failure is not None:
            yield failure
        await asyncio.sleep(PAUSE_S)


async def until_closed(
    stream: Callable[[], AsyncGenerator[Item, None]],
    convert: Callable[[Item], Message],
    rpc: str,
) -> AsyncGenerator[Message, None]:
    """Yields the converted items of a stream, then pauses for 5 s.

    A failure is logged and ends the stream without an error. For TaskStats: Nomad logs an error of
    TaskStats once a second as long as Nomad knows the task.
    """
    try:
        async with aclosing(stream()) as items:
            async for item in items:
                yield convert(item)
    except DriverError as error:
        _log.debug("stream ended", extra={"rpc": rpc, "reason": str(error)})
    except Exception:  # noqa: BLE001
        _log.exception("stream failed", extra={"rpc": rpc})
    await asyncio.sleep(PAUSE_S)
