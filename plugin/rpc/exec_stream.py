"""The wire side of ExecTaskStreaming: who opens it, what keeps it alive, how it ends.

The host never ends its half of the stream, and a client that was killed leaves no trace but the
absence of the heartbeats (empty messages, every 10 s) that it sent before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

from actors.model.nomad import ExecInput, ExecOutput
from plugin.rpc.conversions import exec_input, exec_output
from proto.errors import Code, DriverError
from proto.nomad import driver_pb2 as wire

HEARTBEAT_LIMIT_S = 60.0


class ExecClient:
    """What comes from the client; `gone` is set when its heartbeats have stopped."""

    def __init__(self, requests: AsyncIterator[wire.ExecTaskStreamingRequest]) -> None:
        self._requests = requests
        self.gone = asyncio.Event()

    async def setup(self) -> wire.ExecTaskStreamingRequest.Setup:
        """The first message.

        Raises:
            DriverError: code INVALID, it is no setup or has no command.
        """
        first = await anext(self._requests, None)
        if first is None or not first.HasField("setup"):
            raise DriverError("exec: the first message must be setup", code=Code.INVALID)
        command(first.setup.command)
        return first.setup

    async def inputs(self) -> AsyncGenerator[ExecInput, None]:
        """The messages after the first, heartbeats left out, until the client ends or is gone."""
        beating = False
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_LIMIT_S if beating else None):
                    message = await anext(self._requests, None)
            except TimeoutError:
                self.gone.set()
                return
            if message is None:
                return
            if not message.ListFields():
                beating = True
                continue
            yield exec_input(message)


def command(words: Iterable[str]) -> list[str]:
    """The command of an exec.

    Raises:
        DriverError: code INVALID, it is empty.
    """
    found = list(words)
    if not found or not found[0]:
        raise DriverError(
            "exec needs a command", resolution="name the program to run", code=Code.INVALID
        )
    return found


async def answers(
    outputs: AsyncGenerator[ExecOutput, None], client_gone: asyncio.Event
) -> AsyncGenerator[wire.ExecTaskStreamingResponse, None]:
    """Messages for the client; the last one carries the exit and nothing else.

    Closes `outputs`, which kills the command, also when the client is gone or cancels.

    Raises:
        DriverError: the client is gone, or the session ended without an exit.
    """
    gone = asyncio.create_task(client_gone.wait())
    step: asyncio.Task[ExecOutput | None] | None = None
    try:
        while True:
            step = asyncio.create_task(_next(outputs))
            await asyncio.wait({step, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                raise DriverError("exec: the client's heartbeats have stopped", code=Code.CANCELLED)
            output = step.result()
            if output is None:
                raise DriverError("exec: the session ended without an exit code")
            if output != ExecOutput():
                yield exec_output(output)
            if output.exit is not None:
                return
    finally:
        jobs: list[asyncio.Future[Any]] = [job for job in (step, gone) if job is not None]
        for job in jobs:
            job.cancel()
        # A generator cannot be closed while a step of it runs.
        await asyncio.gather(*jobs, return_exceptions=True)
        await outputs.aclose()


async def _next(outputs: AsyncGenerator[ExecOutput, None]) -> ExecOutput | None:
    return await anext(outputs, None)
