"""Commands of script checks: no stdin, and the end of the output in one answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from actors.exec.session import stream
from actors.model.nomad import ExecInput, ExecResult, ExitResult
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from actors.exec.tail import TailBudget
    from actors.lifecycle.running import RunningTask

_log = logging.getLogger(__name__)


async def collect(
    task: RunningTask,
    command: Sequence[str],
    timeout_s: float,
    budget: TailBudget,
) -> ExecResult:
    """Runs a command in a task without stdin, and collects the end of the output.

    Args:
        task: the running task.
        command: the program and the arguments.
        timeout_s: seconds until the command is killed; 0 is no limit.
        budget: memory that all commands share.

    Raises:
        DriverError: see `stream`; code TIMEOUT if the command was killed.
    """
    ended = ExitResult(exit_code=-1)
    with budget.streams() as (stdout, stderr):
        try:
            async with asyncio.timeout(timeout_s or None):
                session = stream(task, command, terminal=False, inputs=_closed_stdin())
                async with contextlib.aclosing(session):
                    async for output in session:
                        ended = output.exit or ended
                        stdout.add(output.stdout)
                        stderr.add(output.stderr)
        except TimeoutError:
            raise DriverError(
                f"the command did not end within {timeout_s:g} s and was killed",
                details=" ".join(command)[:200],
                code=Code.TIMEOUT,
            ) from None
        result = ExecResult(stdout=stdout.take(), stderr=stderr.take(), exit=ended)
        if dropped := stdout.dropped + stderr.dropped:
            keys = {"task_id": task.task_id, "alloc_id": task.alloc_id, "dropped_bytes": dropped}
            _log.info("output of a command cut to its end", extra=keys)
    return result


async def _closed_stdin() -> AsyncIterator[ExecInput]:
    yield ExecInput(stdin_close=True)
