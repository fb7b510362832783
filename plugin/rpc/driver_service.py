"""Nomad's Driver service: methods convert the request, call the gateway, convert the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from plugin import options
from plugin.options import hcl_schema
from plugin.rpc.conversions import (
    event_message,
    exec_response,
    failed_fingerprint_response,
    fingerprint_response,
    inspect_response,
    network_response,
    read_seconds,
    read_task_config,
    start_response,
    stats_response,
    wait_response,
)
from plugin.rpc.exec_stream import ExecClient, answers, command
from plugin.rpc.retries import reopen_forever, retry_until_answered, until_closed
from proto.errors import Code, DriverError
from proto.nomad import driver_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.gateway import Gateway
    from actors.model.nomad import TaskConfig

_Isolation = driver_pb2.NetworkIsolationSpec
# Less is decoded in less time than a thread needs to start.
_SMALL_BYTES = 16 * 1024
T = TypeVar("T")
U = TypeVar("U")
# The first sample comes at once, so no client needs a shorter interval. 0 would mean never.
_FASTEST_STATS_S = 0.1


class DriverService:
    """Methods of the Driver service; one instance per plugin process."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._schema = hcl_schema.schema(options.TASK_OPTIONS)

    async def init(self, _: driver_pb2.InitRequest) -> driver_pb2.InitResponse:
        """Does nothing: the actors start with SetConfig."""
        return driver_pb2.InitResponse()

    async def shutdown(self, _: driver_pb2.ShutdownRequest) -> driver_pb2.ShutdownResponse:
        """Does nothing when the agent stops: tasks go on."""
        return driver_pb2.ShutdownResponse()

    async def task_config_schema(
        self, _: driver_pb2.TaskConfigSchemaRequest
    ) -> driver_pb2.TaskConfigSchemaResponse:
        """Returns the schema of a task's config block."""
        return driver_pb2.TaskConfigSchemaResponse(spec=self._schema)

    async def capabilities(
        self, _: driver_pb2.CapabilitiesRequest
    ) -> driver_pb2.CapabilitiesResponse:
        """Returns the capabilities. Nomad's task runners ask after SetConfig."""
        capabilities = driver_pb2.DriverCapabilities(
            send_signals=True,
            exec=True,
            fs_isolation=driver_pb2.DriverCapabilities.IMAGE,
            network_isolation_modes=[_Isolation.GROUP, _Isolation.TASK],
            must_create_network=self._gateway.creates_networks(),
            mount_configs=driver_pb2.DriverCapabilities.ANY_MOUNTS,
            disable_log_collection=self._gateway.collects_logs(),
        )
        return driver_pb2.CapabilitiesResponse(capabilities=capabilities)

    async def fingerprint(
        self, _: driver_pb2.FingerprintRequest
    ) -> AsyncGenerator[driver_pb2.FingerprintResponse, None]:
        """Yields the health and the attributes of the driver; the stream never ends."""
        responses = reopen_forever(
            self._gateway.fingerprints,
            fingerprint_response,
            "fingerprint",
            on_failure=failed_fingerprint_response,
        )
        async with aclosing(responses):
            async for response in responses:
                yield response

    async def start_task(
        self, request: driver_pb2.StartTaskRequest
    ) -> driver_pb2.StartTaskResponse:
        """Starts a task."""
        task = await _decoded(read_task_config, request.task, request.ByteSize())
        async with self._ending_logs(task):
            config = request.task.msgpack_driver_config
            chosen = await _decoded(options.task_options, config, len(config))
            answer = await self._gateway.start_task(task, chosen)
        return start_response(request.task, answer)

    @asynccontextmanager
    async def _ending_logs(self, task: TaskConfig) -> AsyncGenerator[None, None]:
        """Ends Nomad's log collector if the start fails: the collector would wait for a writer."""
        try:
            yield
        except Exception as error:
            await self._gateway.start_failed(task, error)
            raise

    async def recover_task(
        self, request: driver_pb2.RecoverTaskRequest
    ) -> driver_pb2.RecoverTaskResponse:
        """Recovers a task by its handle; Nomad leaves the `task_id` of the request empty."""
        if not request.HasField("handle"):
            raise DriverError("error: handle cannot be nil", code=Code.INVALID)
        handle = request.handle
        await self._gateway.recover_task(
            read_task_config(handle.config), handle.version, handle.driver_state
        )
        return driver_pb2.RecoverTaskResponse()

    async def wait_task(self, request: driver_pb2.WaitTaskRequest) -> driver_pb2.WaitTaskResponse:
        """Answers only when the task has ended."""
        result = await retry_until_answered(
            lambda: self._gateway.wait_task(request.task_id), "wait"
        )
        return wait_response(result)

    async def stop_task(self, request: driver_pb2.StopTaskRequest) -> driver_pb2.StopTaskResponse:
        """Stops the task; answers when the task's process has ended."""
        await self._gateway.stop_task(
            request.task_id, read_seconds(request.timeout), request.signal
        )
        return driver_pb2.StopTaskResponse()

    async def destroy_task(
        self, request: driver_pb2.DestroyTaskRequest
    ) -> driver_pb2.DestroyTaskResponse:
        """Removes the task with all its parts."""
        await self._gateway.destroy_task(request.task_id, force=request.force)
        return driver_pb2.DestroyTaskResponse()

    async def inspect_task(
        self, request: driver_pb2.InspectTaskRequest
    ) -> driver_pb2.InspectTaskResponse:
        """Returns the state of the task."""
        return inspect_response(await self._gateway.inspect_task(request.task_id))

    async def task_stats(
        self, request: driver_pb2.TaskStatsRequest
    ) -> AsyncGenerator[driver_pb2.TaskStatsResponse, None]:
        """Yields samples until the task ends, then pauses: Nomad would call again at once."""
        wanted_s = read_seconds(request.collection_interval) or 1.0
        interval_s = max(_FASTEST_STATS_S, wanted_s)
        samples = until_closed(
            lambda: self._gateway.task_stats(request.task_id, interval_s), stats_response, "stats"
        )
        async with aclosing(samples):
            async for sample in samples:
                yield sample

    async def task_events(
        self, _: driver_pb2.TaskEventsRequest
    ) -> AsyncGenerator[driver_pb2.DriverTaskEvent, None]:
        """Yields the events of all tasks; the stream never ends."""
        events = reopen_forever(self._gateway.task_events, event_message, "events")
        async with aclosing(events):
            async for event in events:
                yield event

    async def signal_task(
        self, request: driver_pb2.SignalTaskRequest
    ) -> driver_pb2.SignalTaskResponse:
        """Sends a signal to the task."""
        await self._gateway.signal_task(request.task_id, request.signal)
        return driver_pb2.SignalTaskResponse()

    async def exec_task(self, request: driver_pb2.ExecTaskRequest) -> driver_pb2.ExecTaskResponse:
        """Runs a command of a script check or a change script, and returns its output."""
        argv = command(request.command)
        timeout_s = read_seconds(request.timeout)
        return exec_response(await self._gateway.exec_task(request.task_id, argv, timeout_s))

    async def exec_task_streaming(
        self, requests: AsyncIterator[driver_pb2.ExecTaskStreamingRequest]
    ) -> AsyncGenerator[driver_pb2.ExecTaskStreamingResponse, None]:
        """Runs the command of the first message, with streams in both directions."""
        client = ExecClient(requests)
        setup = await client.setup()
        outputs = self._gateway.exec_task_streaming(
            setup.task_id, list(setup.command), tty=setup.tty, inputs=client.inputs()
        )
        responses = answers(outputs, client.gone)
        async with aclosing(responses):
            async for response in responses:
                yield response

    async def create_network(
        self, request: driver_pb2.CreateNetworkRequest
    ) -> driver_pb2.CreateNetworkResponse:
        """Creates the network of an alloc, where the operator has chosen so; else Nomad does."""
        if not self._gateway.creates_networks():
            return driver_pb2.CreateNetworkResponse(created=False)
        network, created = await self._gateway.create_network(request.alloc_id, request.hostname)
        return network_response(network, created=created)

    async def destroy_network(
        self, request: driver_pb2.DestroyNetworkRequest
    ) -> driver_pb2.DestroyNetworkResponse:
        """Removes the network of an alloc; after a restart, the request may have the id alone."""
        if self._gateway.creates_networks():
            await self._gateway.destroy_network(request.alloc_id)
        return driver_pb2.DestroyNetworkResponse()


async def _decoded(decode: Callable[[T], U], packed: T, size_bytes: int) -> U:
    """Returns `decode(packed)`; decodes large input in a thread, so that no other call waits."""
    if size_bytes <= _SMALL_BYTES:
        return decode(packed)
    return await asyncio.to_thread(decode, packed)
