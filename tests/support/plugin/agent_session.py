"""The dev host's session with the RPCs that only tests call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from google.protobuf.duration_pb2 import Duration

from actors.model.nomad import (
    ExecInput,
    ExecOutput,
    ExecResult,
    ExitResult,
    TaskState,
    TaskStatus,
)
from plugin.host.agent.conversions import read_exit, read_network
from plugin.host.agent.session import PluginSession
from proto.nomad import driver_pb2
from tests.support.waiting import slowed

_EXEC_S = slowed(10.0)
_EXEC = "/hashicorp.nomad.plugins.drivers.proto.Driver/ExecTaskStreaming"


class AgentSession(PluginSession):
    """A session with all RPCs that an agent has."""

    def kill_plugin(self) -> None:
        """Sends SIGKILL to the plugin, as an out-of-memory kill or a crash would end it."""
        self._process.kill()

    async def inspect(self, task_id: str) -> TaskStatus:
        """Returns the status of a task."""
        request = driver_pb2.InspectTaskRequest(task_id=task_id)
        return status(await self._ask("InspectTask", request))

    async def exec(
        self, task_id: str, command: Sequence[str], timeout_s: float = _EXEC_S
    ) -> ExecResult:
        """Runs a command in a task and returns its output and exit."""
        timeout = Duration()
        timeout.FromNanoseconds(round(timeout_s * 1e9))
        request = driver_pb2.ExecTaskRequest(
            task_id=task_id, command=list(command), timeout=timeout
        )
        answer = await self._ask("ExecTask", request)
        ended = driver_pb2.WaitTaskResponse(result=answer.result)
        exit_ = read_exit(ended)
        return ExecResult(stdout=answer.stdout, stderr=answer.stderr, exit=exit_)

    async def exec_streaming(
        self,
        task_id: str,
        command: Sequence[str],
        inputs: AsyncIterator[ExecInput],
        *,
        tty: bool = False,
    ) -> AsyncGenerator[ExecOutput, None]:
        """Runs a command in a task with streams for its input and output.

        The host never half-closes an exec stream: the requests end after the last answer.
        """
        setup = driver_pb2.ExecTaskStreamingRequest.Setup(
            task_id=task_id, command=list(command), tty=tty
        )
        waiting: asyncio.Queue[driver_pb2.ExecTaskStreamingRequest | None] = asyncio.Queue()
        waiting.put_nowait(driver_pb2.ExecTaskStreamingRequest(setup=setup))

        async def read_inputs() -> None:
            async for item in inputs:
                waiting.put_nowait(exec_input(item))

        async def requests() -> AsyncGenerator[driver_pb2.ExecTaskStreamingRequest, None]:
            while (request := await waiting.get()) is not None:
                yield request

        reading = asyncio.create_task(read_inputs())
        answers = self._calls.exchange(
            _EXEC,
            requests(),
            driver_pb2.ExecTaskStreamingRequest,
            driver_pb2.ExecTaskStreamingResponse,
        )
        try:
            async with contextlib.aclosing(answers):
                async for message in answers:
                    yield exec_output(message)
        finally:
            # gRPC's task that waits for a request belongs to nothing else: it would be garbage.
            waiting.put_nowait(None)
            reading.cancel()


def status(message: driver_pb2.InspectTaskResponse) -> TaskStatus:
    """Returns what InspectTask answered."""
    task = message.task
    return TaskStatus(
        id=task.id,
        name=task.name,
        state=TaskState(task.state),
        started_at_ns=task.started_at.ToNanoseconds(),
        completed_at_ns=task.completed_at.ToNanoseconds(),
        result=ExitResult(
            exit_code=task.result.exit_code,
            signal=task.result.signal,
            oom_killed=task.result.oom_killed,
        ),
        driver_attributes=dict(message.driver.attributes),
        network=read_network(message.network_override),
    )


def exec_output(message: driver_pb2.ExecTaskStreamingResponse) -> ExecOutput:
    """Returns a message of an exec session."""
    ended = None
    if message.exited:
        ended = ExitResult(exit_code=message.result.exit_code, signal=message.result.signal)
    return ExecOutput(
        stdout=message.stdout.data,
        stderr=message.stderr.data,
        stdout_close=message.stdout.close,
        stderr_close=message.stderr.close,
        exit=ended,
    )


def exec_input(item: ExecInput) -> driver_pb2.ExecTaskStreamingRequest:
    """Returns a message to an exec session; an empty message is a heartbeat."""
    message = driver_pb2.ExecTaskStreamingRequest()
    if item.resize is not None:
        message.tty_size.height, message.tty_size.width = item.resize
    if item.stdin or item.stdin_close:
        message.stdin.data, message.stdin.close = item.stdin, item.stdin_close
    return message
