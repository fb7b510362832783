"""Messages of ExecTaskStreaming: the setup, the heartbeats of the client, the exit.

Nomad never closes its half of the stream. The only sign of a killed client is the absence of its
heartbeats: empty messages, one every 10 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

from actors.model.nomad import ExecInput, ExecOutput
from plugin.rpc.conversions import exec_stream_response, read_exec_input
from proto.errors import Code, DriverError
from proto.nomad import driver_pb2 as wire

HEARTBEAT_LIMIT_S = 60.0


class ExecClient:
    """Messages from the client; `gone` is set when the heartbeats have stopped."""

    def __init__(self, requests: AsyncIterator[wire.ExecTaskStreamingRequest]) -> None:
        self._requests = requests
        self.gone = asyncio.Event()

    async def setup(self) -> wire.ExecTaskStreamingRequest.Setup:
        """Returns the setup, which must be the first message.

        Raises:
            DriverError: code INVALID, the first message is no setup or has no command.
        """
        first = await anext(self._requests, None)
        if first is None or not first.HasField("setup"):
            raise DriverError("exec: the first message must be setup", code=Code.INVALID)
        command(first.setup.command)
        return first.setup

    async def inputs(self) -> AsyncGenerator[ExecInput, None]:
        """Yields the messages after the first, without heartbeats.

        The end of the stream, or a missing heartbeat after an earlier heartbeat, ends the inputs.
        """
        beats = False
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_LIMIT_S if beats else None):
                    message = await anext(self._requests, None)
            except TimeoutError:
                self.gone.set()
                return
            if message is None:
                return
            if not message.ListFields():
                beats = True
                continue
            yield read_exec_input(message)


def command(words: Iterable[str]) -> list[str]:
    """Returns the words of a command.

    Raises:
        DriverError: code INVALID, the command is empty.
    """
    argv = list(words)
    if not argv or not argv[0]:
        raise DriverError(
            "exec needs a command", resolution="name the program to run", code=Code.INVALID
        )
    return argv


async def answers(
    outputs: AsyncGenerator[ExecOutput, None], client_gone: asyncio.Event
) -> AsyncGenerator[wire.ExecTaskStreamingResponse, None]:
    """Yields the messages for the client; the last message carries only the exit.

    Closes `outputs` in any case, also when the client is gone or cancels: the closing kills the
    command.

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
                yield exec_stream_response(output)
            if output.exit is not None:
                return
    finally:
        jobs: list[asyncio.Future[Any]] = [job for job in (step, gone) if job is not None]
        for job in jobs:
            job.cancel()
        # A generator cannot be closed during one of its steps.
        await asyncio.gather(*jobs, return_exceptions=True)
        await outputs.aclose()


async def _next(outputs: AsyncGenerator[ExecOutput, None]) -> ExecOutput | None:
    return await anext(outputs, None)
