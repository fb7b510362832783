"""HostSession: a plugin process and the agent's side of its RPCs.

Launches the plugin by go-plugin's handshake, exactly as a Nomad agent does; the tests drive the
driver through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from actors.model.nomad import (
    ExecInput,
    ExecOutput,
    ExecResult,
    ExitResult,
    Fingerprint,
    NetworkOverride,
    TaskConfig,
    TaskEvent,
    TaskStatus,
    TaskUsage,
)
from actors.processes import child_process
from plugin.host.agent import conversions as wire
from plugin.host.agent import hcl_config
from plugin.host.agent.plugin_process import PluginProcess
from proto.errors import Code, DriverError
from proto.nomad import base_pb2, driver_pb2, goplugin_pb2, hclspec_pb2

_BASE = "/hashicorp.nomad.plugins.base.proto.BasePlugin"
_DRIVER = "/hashicorp.nomad.plugins.drivers.proto.Driver"
_API_VERSION = "v0.1.0"
_EXIT_S = 2.0
_DEATH_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """Who a plugin is: the name that jobs give as `driver`, and its version."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """What Nomad would keep in its state store about a started task."""

    task_id: str
    message: driver_pb2.TaskHandle
    network: NetworkOverride | None = None

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
        self._process = PluginProcess(self._program)
        self._channel: grpc.aio.Channel | None = None
        self._task_spec = hclspec_pb2.Spec()
        self.info = PluginInfo(name="", version="")

    async def launch(self) -> None:
        """Starts the plugin, configures it and reads the task schema.

        Raises:
            DriverError: it does not start, is no task driver, or refuses its config.
        """
        address = await self._handshake()
        self._channel = grpc.aio.insecure_channel(
            f"unix:{address}", [("grpc.max_receive_message_length", -1)]
        )
        self.info = await self._introduce()
        schema = await self._call(
            f"{_BASE}/ConfigSchema", base_pb2.ConfigSchemaRequest(), base_pb2.ConfigSchemaResponse
        )
        request = base_pb2.SetConfigRequest(
            msgpack_config=hcl_config.encode(schema.spec, self._config),
            nomad_config=wire.nomad_config(),
            plugin_api_version=_API_VERSION,
        )
        await self._call(f"{_BASE}/SetConfig", request, base_pb2.SetConfigResponse)
        try:
            await self._ask("Init", driver_pb2.InitRequest())
        except DriverError as error:
            if error.code is not Code.UNSUPPORTED:  # a driver from before Nomad 2.0.4
                raise
        answer = await self._ask("TaskConfigSchema", driver_pb2.TaskConfigSchemaRequest())
        self._task_spec = answer.spec

    async def _introduce(self) -> PluginInfo:
        answer = await self._call(
            f"{_BASE}/PluginInfo", base_pb2.PluginInfoRequest(), base_pb2.PluginInfoResponse
        )
        if answer.type != base_pb2.DRIVER or _API_VERSION not in answer.plugin_api_versions:
            raise DriverError(
                f"{self._program[0]} is a plugin, but no task driver of API {_API_VERSION}",
                code=Code.UNSUPPORTED,
            )
        return PluginInfo(name=answer.name, version=answer.plugin_version)

    @property
    def pid(self) -> int:
        """The plugin's pid."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Returns whether the plugin process runs."""
        return self._process.alive

    async def died(self, error: DriverError) -> bool:
        """Whether a call failed because the plugin died; asked as Nomad does, for up to 3 s."""
        if error.code not in {Code.UNAVAILABLE, Code.CANCELLED}:
            return False
        return await self._process.ends_within(_DEATH_S)

    def kill_plugin(self) -> None:
        """SIGKILL, as an out-of-memory kill or a crash would end it."""
        self._process.kill()

    async def close(self) -> None:
        """Ends the plugin as an agent does: GRPCController.Shutdown, 2 s, SIGKILL."""
        if self.alive and self._channel is not None:
            with contextlib.suppress(DriverError):
                await self._call(
                    "/plugin.GRPCController/Shutdown",
                    goplugin_pb2.Empty(),
                    goplugin_pb2.Empty,
                    timeout_s=_EXIT_S,
                )
        await self._drop_channel()
        await self._process.finish(_EXIT_S)

    # --- tasks

    async def start(self, task: TaskConfig, config: Mapping[str, Any]) -> Handle:
        """StartTask; config is the job's config block, checked against the served schema."""
        packed = hcl_config.encode(self._task_spec, config)
        return await self.start_packed(task, packed)

    async def start_packed(self, task: TaskConfig, packed: bytes) -> Handle:
        """StartTask with the driver config as bytes."""
        request = driver_pb2.StartTaskRequest(task=wire.task_config(task, packed))
        answer = await self._ask("StartTask", request)
        network = wire.network_override(answer.network_override)
        return Handle(task_id=task.id, message=answer.handle, network=network)

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
        await self._process.finish(_EXIT_S)
        self._process = PluginProcess(self._program)
        return await self._process.start()

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
        except asyncio.CancelledError:
            if _cancelled_by_caller():
                raise
            raise _channel_closed() from None

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
        except asyncio.CancelledError:
            if _cancelled_by_caller():
                raise
            raise _channel_closed() from None
        finally:
            call.cancel()


def _cancelled_by_caller() -> bool:
    """False where gRPC cancelled the call itself: somebody has closed the channel under it."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _channel_closed() -> DriverError:
    return DriverError("the connection to the plugin was closed", code=Code.CANCELLED)


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


def default_program() -> list[str]:
    """This very driver, started as a plugin."""
    return [sys.executable, "-I", str(child_process.ROOT / "plugin" / "main.py")]
