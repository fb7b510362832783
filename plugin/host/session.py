"""HostSession: a plugin process and the agent's side of its RPCs.

Launches the plugin by go-plugin's handshake, exactly as a Nomad agent does; the tests drive the
driver through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from actors import child_process
from actors.nomad_types import (
    ExecInput,
    ExecOutput,
    ExecResult,
    ExitResult,
    Fingerprint,
    TaskConfig,
    TaskEvent,
    TaskStatus,
    TaskUsage,
)
from plugin import environment
from plugin.host import hcl_config, wire
from proto.errors import Code, DriverError
from proto.nomad import base_pb2, driver_pb2, goplugin_pb2

_BASE = "/hashicorp.nomad.plugins.base.proto.BasePlugin"
_DRIVER = "/hashicorp.nomad.plugins.drivers.proto.Driver"
_START_S = 60.0
_EXIT_S = 2.0
_log = logging.getLogger("plugin.host.plugin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """What Nomad would keep in its state store about a started task."""

    task_id: str
    message: driver_pb2.TaskHandle

    @property
    def driver_state(self) -> bytes:
        """The driver's own bytes."""
        return self.message.driver_state


class HostSession:
    """One plugin process. `launch` may be called again after its death.

    Args:
        program: the plugin's executable and arguments.
        config: the plugin block's values.
    """

    def __init__(self, program: Sequence[str], config: Mapping[str, Any] | None = None) -> None:
        self._program = list(program)
        self._config = dict(config or {})
        self._process: child_process.Child | None = None
        self._channel: grpc.aio.Channel | None = None
        self._task_spec: Any = None
        self._log_pump: asyncio.Task[None] | None = None

    async def launch(self) -> None:
        """Starts the plugin, configures it and reads the task schema.

        Raises:
            DriverError: it does not start or refuses its config.
        """
        address = await self._handshake()
        self._channel = grpc.aio.insecure_channel(
            f"unix:{address}", [("grpc.max_receive_message_length", -1)]
        )
        schema = await self._call(
            f"{_BASE}/ConfigSchema", base_pb2.ConfigSchemaRequest(), base_pb2.ConfigSchemaResponse
        )
        request = base_pb2.SetConfigRequest(
            msgpack_config=hcl_config.encode(schema.spec, self._config),
            plugin_api_version="v0.1.0",
        )
        await self._call(f"{_BASE}/SetConfig", request, base_pb2.SetConfigResponse)
        await self._ask("Init", driver_pb2.InitRequest())
        answer = await self._ask("TaskConfigSchema", driver_pb2.TaskConfigSchemaRequest())
        self._task_spec = answer.spec

    @property
    def pid(self) -> int:
        """The plugin's pid."""
        return self._process.pid if self._process else 0

    @property
    def alive(self) -> bool:
        """Whether the plugin process runs."""
        return self._process is not None and self._process.poll() is None

    def kill_plugin(self) -> None:
        """SIGKILL, as an out-of-memory kill or a crash would end it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def close(self) -> None:
        """Ends the plugin as an agent does: GRPCController.Shutdown, 2 s, SIGKILL."""
        if self.alive:
            with contextlib.suppress(DriverError):
                await self._call(
                    "/plugin.GRPCController/Shutdown",
                    goplugin_pb2.Empty(),
                    goplugin_pb2.Empty,
                    timeout_s=_EXIT_S,
                )
        await self._drop_channel()
        if self._process is not None:
            await asyncio.to_thread(child_process.finish, self._process, _EXIT_S)
        if self._log_pump is not None:
            self._log_pump.cancel()
            await asyncio.gather(self._log_pump, return_exceptions=True)

    # --- tasks

    async def start(self, task: TaskConfig, config: Mapping[str, Any]) -> Handle:
        """StartTask; config is the job's config block, checked against the served schema."""
        packed = hcl_config.encode(self._task_spec, config)
        return await self.start_packed(task, packed)

    async def start_packed(self, task: TaskConfig, packed: bytes) -> Handle:
        """StartTask with the driver config as bytes."""
        request = driver_pb2.StartTaskRequest(task=wire.task_config(task, packed))
        answer = await self._ask("StartTask", request)
        return Handle(task_id=task.id, message=answer.handle)

    async def recover(self, handle: Handle) -> None:
        """RecoverTask. As after an agent's restart, the handle carries no driver config."""
        message = driver_pb2.TaskHandle()
        message.CopyFrom(handle.message)
        message.config.msgpack_driver_config = b""
        await self._ask("RecoverTask", driver_pb2.RecoverTaskRequest(handle=message))

    async def wait(self, task_id: str) -> ExitResult:
        """WaitTask."""
        answer = await self._ask("WaitTask", driver_pb2.WaitTaskRequest(task_id=task_id))
        return wire.exit_result(answer)

    async def stop(self, task_id: str, timeout_s: float = 5.0, signal: str = "") -> None:
        """StopTask."""
        request = driver_pb2.StopTaskRequest(
            task_id=task_id, timeout=_duration(timeout_s), signal=signal
        )
        await self._ask("StopTask", request)

    async def destroy(self, task_id: str, *, force: bool = True) -> None:
        """DestroyTask."""
        request = driver_pb2.DestroyTaskRequest(task_id=task_id, force=force)
        await self._ask("DestroyTask", request)

    async def inspect(self, task_id: str) -> TaskStatus:
        """InspectTask."""
        request = driver_pb2.InspectTaskRequest(task_id=task_id)
        return wire.status(await self._ask("InspectTask", request))

    async def signal(self, task_id: str, signal: str) -> None:
        """SignalTask."""
        request = driver_pb2.SignalTaskRequest(task_id=task_id, signal=signal)
        await self._ask("SignalTask", request)

    async def exec(
        self, task_id: str, command: Sequence[str], timeout_s: float = 10.0
    ) -> ExecResult:
        """ExecTask."""
        request = driver_pb2.ExecTaskRequest(
            task_id=task_id, command=list(command), timeout=_duration(timeout_s)
        )
        answer = await self._ask("ExecTask", request)
        ended = driver_pb2.WaitTaskResponse(result=answer.result)
        return ExecResult(stdout=answer.stdout, stderr=answer.stderr, exit=wire.exit_result(ended))

    async def exec_streaming(
        self,
        task_id: str,
        command: Sequence[str],
        inputs: AsyncIterator[ExecInput],
        *,
        tty: bool = False,
    ) -> AsyncGenerator[ExecOutput, None]:
        """ExecTaskStreaming."""

        async def requests() -> AsyncGenerator[driver_pb2.ExecTaskStreamingRequest, None]:
            setup = driver_pb2.ExecTaskStreamingRequest.Setup(
                task_id=task_id, command=list(command), tty=tty
            )
            yield driver_pb2.ExecTaskStreamingRequest(setup=setup)
            async for item in inputs:
                yield wire.exec_input(item)
            # The host never half-closes an exec stream.
            await asyncio.Event().wait()

        call = self._open().stream_stream(
            f"{_DRIVER}/ExecTaskStreaming",
            request_serializer=driver_pb2.ExecTaskStreamingRequest.SerializeToString,
            response_deserializer=driver_pb2.ExecTaskStreamingResponse.FromString,
        )(requests())
        async for message in self._messages(call):
            yield wire.exec_output(message)

    async def stats(self, task_id: str, interval_s: float = 1.0) -> AsyncGenerator[TaskUsage, None]:
        """TaskStats."""
        request = driver_pb2.TaskStatsRequest(
            task_id=task_id, collection_interval=_duration(interval_s)
        )
        async for message in self._stream("TaskStats", request, driver_pb2.TaskStatsResponse):
            yield wire.usage(message)

    async def events(self) -> AsyncGenerator[TaskEvent, None]:
        """TaskEvents."""
        request = driver_pb2.TaskEventsRequest()
        async for message in self._stream("TaskEvents", request, driver_pb2.DriverTaskEvent):
            yield wire.event(message)

    async def fingerprints(self) -> AsyncGenerator[Fingerprint, None]:
        """Fingerprint."""
        request = driver_pb2.FingerprintRequest()
        async for message in self._stream("Fingerprint", request, driver_pb2.FingerprintResponse):
            yield wire.fingerprint(message)

    async def fingerprint(self) -> Fingerprint:
        """The first fingerprint."""
        async with contextlib.aclosing(self.fingerprints()) as looks:
            return await anext(looks)

    # --- below

    async def _handshake(self) -> str:
        await self._drop_channel()
        self._process = await asyncio.to_thread(
            child_process.start,
            self._program,
            env=environment.for_plugin(),
            stdout=child_process.PIPE,
            stderr=child_process.PIPE,
        )
        assert self._process.stdout is not None  # noqa: S101 - PIPE was asked for
        reader = await _stream_reader(self._process.stdout)
        try:
            line = (await asyncio.wait_for(reader.readline(), _START_S)).decode()
        except TimeoutError:
            line = ""
        self._log_pump = asyncio.create_task(_pump_log(self._process))
        fields = line.strip().split("|")
        if len(fields) < 5 or fields[4] != "grpc" or fields[2] != "unix":  # noqa: PLR2004
            self.kill_plugin()
            raise DriverError(
                f"{self._program[0]} did not answer as a plugin does",
                details=repr(line[:200]),
                resolution="run it by hand to see what it says",
                code=Code.UNAVAILABLE,
            )
        return fields[3]

    async def _drop_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise DriverError("the plugin is not launched", code=Code.PRECONDITION)
        return self._channel

    async def _ask(self, name: str, request: Any) -> Any:
        return await self._call(
            f"{_DRIVER}/{name}", request, getattr(driver_pb2, f"{name}Response")
        )

    async def _call(
        self, path: str, request: Any, response: Any, timeout_s: float | None = None
    ) -> Any:
        stub = self._open().unary_unary(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        try:
            return await stub(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _refused(error) from None

    async def _stream(self, name: str, request: Any, response: Any) -> AsyncGenerator[Any, None]:
        call = self._open().unary_stream(
            f"{_DRIVER}/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )(request)
        async for message in self._messages(call):
            yield message

    async def _messages(self, call: Any) -> AsyncGenerator[Any, None]:
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise _refused(error) from None
        finally:
            call.cancel()


def _refused(error: grpc.aio.AioRpcError) -> DriverError:
    status = error.code()
    code = {
        grpc.StatusCode.UNAVAILABLE: Code.UNAVAILABLE,
        grpc.StatusCode.CANCELLED: Code.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED: Code.TIMEOUT,
        grpc.StatusCode.UNIMPLEMENTED: Code.UNSUPPORTED,
    }.get(status, Code.INTERNAL)
    # Nomad reads the recoverable flag from the details; FAILED_PRECONDITION stands for it here.
    recoverable = status is grpc.StatusCode.FAILED_PRECONDITION
    return DriverError(str(error.details() or status.name), recoverable=recoverable, code=code)


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


async def _stream_reader(pipe: Any) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    return reader


async def _pump_log(process: child_process.Child) -> None:
    """The plugin's log lines, as a Nomad agent takes them, into our own logging."""
    assert process.stderr is not None  # noqa: S101 - PIPE was asked for
    reader = await _stream_reader(process.stderr)
    levels = {"error": logging.ERROR, "warn": logging.WARNING, "info": logging.INFO}
    while line := await reader.readline():
        try:
            fields = json.loads(line)
            text = str(fields.pop("@message"))
            level = levels.get(str(fields.pop("@level")), logging.DEBUG)
            extra = " ".join(f"{k}={v}" for k, v in fields.items() if not k.startswith("@"))
        except (ValueError, KeyError, AttributeError):
            text, level, extra = line.decode(errors="replace").rstrip(), logging.DEBUG, ""
        _log.log(level, "%s", f"{text} {extra}".rstrip())


def default_program() -> list[str]:
    """This very driver, started as a plugin."""
    return [sys.executable, "-I", str(child_process.ROOT / "plugin" / "main.py")]
