"""The agent's side of a plugin process: launch, configuration and the RPCs that the dev host uses.

The launch follows go-plugin's handshake exactly as a Nomad agent's does. The tests drive the driver
through the same session, with the RPCs of `tests/support/plugin/agent_session.py` in addition.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from actors.model.nomad import (
    ExitResult,
    Fingerprint,
    NetworkOverride,
    TaskConfig,
    TaskEvent,
    TaskUsage,
)
from actors.processes.child_process import Child
from plugin.host.agent import hcl_config
from plugin.host.agent.conversions import (
    nomad_config,
    read_event,
    read_exit,
    read_fingerprint,
    read_network,
    read_usage,
    task_message,
)
from plugin.host.agent.plugin_calls import PluginCalls
from plugin.host.agent.plugin_process import PluginProcess
from proto.errors import Code, DriverError
from proto.nomad import base_pb2, driver_pb2, goplugin_pb2, hclspec_pb2
from proto.values import dataclass

_BASE = "/hashicorp.nomad.plugins.base.proto.BasePlugin"
_DRIVER = "/hashicorp.nomad.plugins.drivers.proto.Driver"
_API_VERSION = "v0.1.0"
_EXIT_S = 2.0
_DEATH_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """A plugin's name, which jobs give as `driver`, and version."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """A started task as an agent keeps it in its state store.

    Args:
        task_id: the id of the task.
        encoded: the plugin's `TaskHandle` message, with the task's config and the driver's state.
        network: the task's own network, if the driver has given it one.
    """

    task_id: str
    encoded: bytes
    network: NetworkOverride | None = None


class PluginSession:
    """One plugin process. `launch` may be called again after the death of the process.

    Args:
        program: the plugin's executable and arguments.
        config: the plugin block's values.
        child: the first process, if `plugin_program` has started it.
    """

    def __init__(
        self,
        program: Sequence[str],
        config: Mapping[str, Any] | None = None,
        child: Child | None = None,
    ) -> None:
        self._program = list(program)
        self._config = dict(config or {})
        self._child = child
        self._process = PluginProcess(self._program)
        self._calls = PluginCalls()
        self._task_spec = hclspec_pb2.Spec()
        self.info = PluginInfo(name="", version="")
        self.collects_logs = False
        """True if the plugin writes the log files, and reads no FIFO's end."""

    async def launch(self) -> None:
        """Starts the plugin, configures it and reads the task schema.

        Raises:
            DriverError: the plugin does not start, is no task driver, or refuses the config.
        """
        self._calls.connect(await self._handshake())
        self.info = await self._introduce()
        schema = await self._calls.ask(
            f"{_BASE}/ConfigSchema", base_pb2.ConfigSchemaRequest(), base_pb2.ConfigSchemaResponse
        )
        request = base_pb2.SetConfigRequest(
            msgpack_config=hcl_config.encode(schema.spec, self._config),
            nomad_config=nomad_config(),
            plugin_api_version=_API_VERSION,
        )
        await self._calls.ask(f"{_BASE}/SetConfig", request, base_pb2.SetConfigResponse)
        try:
            await self._ask("Init", driver_pb2.InitRequest())
        except DriverError as error:
            if error.code is not Code.UNSUPPORTED:  # a driver from before Nomad 2.0.4
                raise
        answer = await self._ask("TaskConfigSchema", driver_pb2.TaskConfigSchemaRequest())
        self._task_spec = answer.spec
        able = await self._ask("Capabilities", driver_pb2.CapabilitiesRequest())
        self.collects_logs = able.capabilities.disable_log_collection

    async def _introduce(self) -> PluginInfo:
        answer = await self._calls.ask(
            f"{_BASE}/PluginInfo", base_pb2.PluginInfoRequest(), base_pb2.PluginInfoResponse
        )
        if answer.type != base_pb2.DRIVER or _API_VERSION not in answer.plugin_api_versions:
            raise DriverError(
                f"{self._program[0]} is a plugin, but not a task driver of API {_API_VERSION}",
                code=Code.UNSUPPORTED,
            )
        return PluginInfo(name=answer.name, version=answer.plugin_version)

    @property
    def pid(self) -> int:
        """The plugin's pid."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True while the plugin process runs."""
        return self._process.alive

    @property
    def process(self) -> PluginProcess:
        """The plugin's present process."""
        return self._process

    async def died(self, error: DriverError, process: PluginProcess | None = None) -> bool:
        """Returns whether a call failed because the plugin died. Waits up to 3 s, as Nomad does.

        Args:
            error: the error of the call.
            process: the process at the begin of the call, if another process may serve now.
        """
        if error.code not in {Code.UNAVAILABLE, Code.CANCELLED}:
            return False
        return await (process or self._process).ends_within(_DEATH_S)

    async def close(self) -> None:
        """Ends the plugin as an agent does: GRPCController.Shutdown, 2 s, SIGKILL."""
        if self.alive and self._calls.connected:
            with contextlib.suppress(DriverError):
                await self._calls.ask(
                    "/plugin.GRPCController/Shutdown",
                    goplugin_pb2.Empty(),
                    goplugin_pb2.Empty,
                    timeout_s=_EXIT_S,
                )
        await self._calls.close()
        await self._process.finish(_EXIT_S)

    # --- tasks

    async def start(self, task: TaskConfig, config: Mapping[str, Any]) -> Handle:
        """Starts a task.

        Args:
            task: the task.
            config: values of the job's config block.

        Raises:
            DriverError: code INVALID, a value does not fit the schema; or the plugin's error.
        """
        packed = hcl_config.encode(self._task_spec, config)
        return await self.start_packed(task, packed)

    async def start_packed(self, task: TaskConfig, packed: bytes) -> Handle:
        """Starts a task with an encoded driver config.

        Args:
            task: the task.
            packed: msgpack of the driver config.

        Raises:
            DriverError: the plugin's error.
        """
        request = driver_pb2.StartTaskRequest(task=task_message(task, packed))
        answer = await self._ask("StartTask", request)
        network = read_network(answer.network_override)
        return Handle(task_id=task.id, encoded=answer.handle.SerializeToString(), network=network)

    async def recover(self, handle: Handle) -> None:
        """Recovers a task. As after an agent's restart, the handle carries no driver config.

        Raises:
            DriverError: the plugin's error.
        """
        message = driver_pb2.TaskHandle.FromString(handle.encoded)
        message.config.msgpack_driver_config = b""
        await self._ask("RecoverTask", driver_pb2.RecoverTaskRequest(handle=message))

    async def wait(self, task_id: str) -> ExitResult:
        """Waits for the end of a task and returns the exit.

        Raises:
            DriverError: code UNAVAILABLE or CANCELLED, the plugin died; or the plugin's error.
        """
        answer = await self._ask("WaitTask", driver_pb2.WaitTaskRequest(task_id=task_id))
        return read_exit(answer)

    async def stop(self, task_id: str, timeout_s: float = 5.0, signal: str = "") -> None:
        """Stops a task.

        Args:
            task_id: the id of the task.
            timeout_s: seconds from the signal to SIGKILL.
            signal: name of the signal; empty for the signal of the job or the image.

        Raises:
            DriverError: the plugin's error.
        """
        request = driver_pb2.StopTaskRequest(
            task_id=task_id, timeout=_duration(timeout_s), signal=signal
        )
        await self._ask("StopTask", request)

    async def destroy(self, task_id: str, *, force: bool = True) -> None:
        """Removes a task and all its objects; with `force` also a running task.

        Raises:
            DriverError: the plugin's error.
        """
        request = driver_pb2.DestroyTaskRequest(task_id=task_id, force=force)
        await self._ask("DestroyTask", request)

    async def signal(self, task_id: str, signal: str) -> None:
        """Sends a signal to a task.

        Args:
            task_id: the id of the task.
            signal: name of the signal, such as SIGHUP.

        Raises:
            DriverError: the plugin's error.
        """
        request = driver_pb2.SignalTaskRequest(task_id=task_id, signal=signal)
        await self._ask("SignalTask", request)

    async def stats(self, task_id: str, interval_s: float = 1.0) -> AsyncGenerator[TaskUsage, None]:
        """Yields a sample of a task's resource usage every `interval_s` seconds."""
        request = driver_pb2.TaskStatsRequest(
            task_id=task_id, collection_interval=_duration(interval_s)
        )
        async for message in self._calls.stream(
            f"{_DRIVER}/TaskStats", request, driver_pb2.TaskStatsResponse
        ):
            yield read_usage(message)

    async def events(self) -> AsyncGenerator[TaskEvent, None]:
        """Yields the events of all tasks."""
        request = driver_pb2.TaskEventsRequest()
        async for message in self._calls.stream(
            f"{_DRIVER}/TaskEvents", request, driver_pb2.DriverTaskEvent
        ):
            yield read_event(message)

    async def fingerprints(self) -> AsyncGenerator[Fingerprint, None]:
        """Yields the fingerprint of the node, then each change."""
        request = driver_pb2.FingerprintRequest()
        async for message in self._calls.stream(
            f"{_DRIVER}/Fingerprint", request, driver_pb2.FingerprintResponse
        ):
            yield read_fingerprint(message)

    async def fingerprint(self) -> Fingerprint:
        """Returns the first fingerprint."""
        async with contextlib.aclosing(self.fingerprints()) as stream:
            return await anext(stream)

    # --- below

    async def _handshake(self) -> str:
        await self._calls.close()
        await self._process.finish(_EXIT_S)
        child, self._child = self._child, None
        self._process = PluginProcess(self._program, child)
        return await self._process.start()

    async def _ask(self, name: str, request: Message) -> Any:
        answer: type[Message] = getattr(driver_pb2, f"{name}Response")
        return await self._calls.ask(f"{_DRIVER}/{name}", request, answer)


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message
