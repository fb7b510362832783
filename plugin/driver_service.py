"""Nomad's Driver service: every method converts, asks the gateway, converts back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING

from actors.nomad_types import ExecInput
from plugin import conversions, hclspec, options
from plugin.grpc_status import forever
from proto.errors import Code, DriverError
from proto.nomad import driver_pb2

if TYPE_CHECKING:
    from actors.gateway import Gateway

_Isolation = driver_pb2.NetworkIsolationSpec
_CAPABILITIES = driver_pb2.DriverCapabilities(
    send_signals=True,
    exec=True,
    fs_isolation=driver_pb2.DriverCapabilities.IMAGE,
    network_isolation_modes=[_Isolation.GROUP, _Isolation.TASK],
    must_create_network=False,
    mount_configs=driver_pb2.DriverCapabilities.ANY_MOUNTS,
)
# The host sends a heartbeat every 10 s once the client is one that does; a client that was killed
# leaves nothing but their absence.
_HEARTBEAT_LIMIT_S = 60.0
# Nomad re-opens a stats stream that ends at once, for as long as it believes in the task.
_STATS_PAUSE_S = 5.0


class DriverService:
    """One per plugin process."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._schema = hclspec.schema(options.TASK_OPTIONS)

    async def init(self, _: driver_pb2.InitRequest) -> driver_pb2.InitResponse:
        """Nothing to do: the actors start with the process."""
        return driver_pb2.InitResponse()

    async def shutdown(self, _: driver_pb2.ShutdownRequest) -> driver_pb2.ShutdownResponse:
        """The agent stops; tasks are not touched."""
        return driver_pb2.ShutdownResponse()

    async def task_config_schema(
        self, _: driver_pb2.TaskConfigSchemaRequest
    ) -> driver_pb2.TaskConfigSchemaResponse:
        """The schema of a task's config block."""
        return driver_pb2.TaskConfigSchemaResponse(spec=self._schema)

    async def capabilities(
        self, _: driver_pb2.CapabilitiesRequest
    ) -> driver_pb2.CapabilitiesResponse:
        """What the driver can; constant."""
        return driver_pb2.CapabilitiesResponse(capabilities=_CAPABILITIES)

    async def fingerprint(
        self, _: driver_pb2.FingerprintRequest
    ) -> AsyncGenerator[driver_pb2.FingerprintResponse, None]:
        """Health of the driver, for ever."""
        async with contextlib.aclosing(self._gateway.fingerprints()) as looks:
            async for look in looks:
                yield conversions.fingerprint(look)
        await forever()

    async def start_task(
        self, request: driver_pb2.StartTaskRequest
    ) -> driver_pb2.StartTaskResponse:
        """Starts a task."""
        chosen = options.task_options(request.task.msgpack_driver_config)
        answer = await self._gateway.start_task(conversions.task_config(request.task), chosen)
        return conversions.started(request.task, answer)

    async def recover_task(
        self, request: driver_pb2.RecoverTaskRequest
    ) -> driver_pb2.RecoverTaskResponse:
        """Takes over a task. The request's own task_id is always empty: the handle has it."""
        if not request.HasField("handle"):
            raise DriverError("error: handle cannot be nil", code=Code.INVALID)
        handle = request.handle
        await self._gateway.recover_task(
            conversions.task_config(handle.config), handle.version, handle.driver_state
        )
        return driver_pb2.RecoverTaskResponse()

    async def wait_task(self, request: driver_pb2.WaitTaskRequest) -> driver_pb2.WaitTaskResponse:
        """Answers when the task has ended."""
        result = await self._gateway.wait_task(request.task_id)
        return driver_pb2.WaitTaskResponse(result=conversions.exit_result(result), err=result.error)

    async def stop_task(self, request: driver_pb2.StopTaskRequest) -> driver_pb2.StopTaskResponse:
        """Answers when the task's process has ended."""
        await self._gateway.stop_task(
            request.task_id, conversions.seconds(request.timeout), request.signal
        )
        return driver_pb2.StopTaskResponse()

    async def destroy_task(
        self, request: driver_pb2.DestroyTaskRequest
    ) -> driver_pb2.DestroyTaskResponse:
        """Removes what belongs to the task."""
        await self._gateway.destroy_task(request.task_id, force=request.force)
        return driver_pb2.DestroyTaskResponse()

    async def inspect_task(
        self, request: driver_pb2.InspectTaskRequest
    ) -> driver_pb2.InspectTaskResponse:
        """What is known of the task."""
        return conversions.inspected(await self._gateway.inspect_task(request.task_id))

    async def task_stats(
        self, request: driver_pb2.TaskStatsRequest
    ) -> AsyncGenerator[driver_pb2.TaskStatsResponse, None]:
        """Samples until the task ends; an error here would fill the agent's log every second."""
        interval_s = conversions.seconds(request.collection_interval) or 1.0
        with contextlib.suppress(DriverError):
            samples = self._gateway.task_stats(request.task_id, interval_s)
            async with contextlib.aclosing(samples):
                async for sample in samples:
                    yield conversions.usage(sample)
        await asyncio.sleep(_STATS_PAUSE_S)

    async def task_events(
        self, _: driver_pb2.TaskEventsRequest
    ) -> AsyncGenerator[driver_pb2.DriverTaskEvent, None]:
        """Events of all tasks, for ever."""
        async with contextlib.aclosing(self._gateway.task_events()) as events:
            async for event in events:
                yield conversions.event(event)
        await forever()

    async def signal_task(
        self, request: driver_pb2.SignalTaskRequest
    ) -> driver_pb2.SignalTaskResponse:
        """Sends a signal."""
        await self._gateway.signal_task(request.task_id, request.signal)
        return driver_pb2.SignalTaskResponse()

    async def exec_task(self, request: driver_pb2.ExecTaskRequest) -> driver_pb2.ExecTaskResponse:
        """Runs a command, for script checks and change scripts."""
        done = await self._gateway.exec_task(
            request.task_id, list(request.command), conversions.seconds(request.timeout)
        )
        return driver_pb2.ExecTaskResponse(
            stdout=done.stdout, stderr=done.stderr, result=conversions.exit_result(done.exit)
        )

    async def exec_task_streaming(
        self, requests: AsyncIterator[driver_pb2.ExecTaskStreamingRequest]
    ) -> AsyncGenerator[driver_pb2.ExecTaskStreamingResponse, None]:
        """Runs a command with its streams; the first message says which."""
        first = await anext(requests, None)
        if first is None or not first.HasField("setup"):
            raise DriverError(
                "exec: the first message has no setup",
                resolution="task, command and tty come first",
                code=Code.INVALID,
            )
        setup = first.setup
        outputs = self._gateway.exec_task_streaming(
            setup.task_id, list(setup.command), tty=setup.tty, inputs=_inputs(requests)
        )
        async with contextlib.aclosing(outputs):
            async for output in outputs:
                yield conversions.exec_output(output)

    async def create_network(
        self, _: driver_pb2.CreateNetworkRequest
    ) -> driver_pb2.CreateNetworkResponse:
        """The driver needs no network of its own: Nomad makes the alloc's."""
        return driver_pb2.CreateNetworkResponse(created=False)

    async def destroy_network(
        self, _: driver_pb2.DestroyNetworkRequest
    ) -> driver_pb2.DestroyNetworkResponse:
        """Nothing was created."""
        return driver_pb2.DestroyNetworkResponse()


async def _inputs(
    requests: AsyncIterator[driver_pb2.ExecTaskStreamingRequest],
) -> AsyncGenerator[ExecInput, None]:
    """The client's messages.

    Raises:
        DriverError: code CANCELLED, heartbeats came and then nothing for too long.
    """
    beating = False
    while True:
        try:
            async with asyncio.timeout(_HEARTBEAT_LIMIT_S if beating else None):
                message = await anext(requests, None)
        except TimeoutError:
            raise DriverError(
                "the exec client is gone", details="no heartbeat", code=Code.CANCELLED
            ) from None
        if message is None:
            return
        beating = beating or not message.ListFields()
        yield conversions.exec_input(message)
