"""Nomad's Driver service: every method converts, asks the gateway, converts back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from plugin import options
from plugin.options import hcl_schema
from plugin.rpc import conversions, exec_stream, retries
from proto.errors import Code, DriverError
from proto.nomad import driver_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.gateway import Gateway
    from actors.model.nomad import TaskConfig

_Isolation = driver_pb2.NetworkIsolationSpec
_CAPABILITIES = driver_pb2.DriverCapabilities(
    send_signals=True,
    exec=True,
    fs_isolation=driver_pb2.DriverCapabilities.IMAGE,
    network_isolation_modes=[_Isolation.GROUP, _Isolation.TASK],
    must_create_network=False,
    mount_configs=driver_pb2.DriverCapabilities.ANY_MOUNTS,
)
# So much is decoded in less time than a thread takes to begin.
_SMALL_BYTES = 16 * 1024
T = TypeVar("T")
U = TypeVar("U")
# A first sample comes at once, so nobody needs them faster; 0 would mean never.
_FASTEST_STATS_S = 0.1


class DriverService:
    """One per plugin process."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._schema = hcl_schema.schema(options.TASK_OPTIONS)

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
        """Returns what the driver can; constant."""
        return driver_pb2.CapabilitiesResponse(capabilities=_CAPABILITIES)

    async def fingerprint(
        self, _: driver_pb2.FingerprintRequest
    ) -> AsyncGenerator[driver_pb2.FingerprintResponse, None]:
        """Health of the driver, for ever."""
        looks = retries.endless(
            self._gateway.fingerprints,
            conversions.fingerprint,
            "fingerprint",
            on_failure=conversions.failed_fingerprint,
        )
        async with aclosing(looks):
            async for look in looks:
                yield look

    async def start_task(
        self, request: driver_pb2.StartTaskRequest
    ) -> driver_pb2.StartTaskResponse:
        """Starts a task."""
        task = await _decoded(conversions.task_config, request.task, request.ByteSize())
        async with self._ending_logs(task):
            config = request.task.msgpack_driver_config
            chosen = await _decoded(options.task_options, config, len(config))
            answer = await self._gateway.start_task(task, chosen)
        return conversions.started(request.task, answer)

    @asynccontextmanager
    async def _ending_logs(self, task: TaskConfig) -> AsyncGenerator[None, None]:
        """Has Nomad's log collector end with a start that fails: it waits for a writer else."""
        try:
            yield
        except Exception as error:
            await self._gateway.start_failed(task, error)
            raise

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
        """Answers when the task has ended, and never for another reason."""
        result = await retries.insist(lambda: self._gateway.wait_task(request.task_id), "wait")
        return conversions.waited(result)

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
        """Returns what is known of the task."""
        return conversions.inspected(await self._gateway.inspect_task(request.task_id))

    async def task_stats(
        self, request: driver_pb2.TaskStatsRequest
    ) -> AsyncGenerator[driver_pb2.TaskStatsResponse, None]:
        """Samples until the task ends; at its end a pause, for Nomad would ask again at once."""
        asked_s = conversions.seconds(request.collection_interval) or 1.0
        interval_s = max(_FASTEST_STATS_S, asked_s)
        samples = retries.while_it_lasts(
            lambda: self._gateway.task_stats(request.task_id, interval_s),
            conversions.usage,
            "stats",
        )
        async with aclosing(samples):
            async for sample in samples:
                yield sample

    async def task_events(
        self, _: driver_pb2.TaskEventsRequest
    ) -> AsyncGenerator[driver_pb2.DriverTaskEvent, None]:
        """Events of all tasks, for ever."""
        events = retries.endless(self._gateway.task_events, conversions.event, "events")
        async with aclosing(events):
            async for event in events:
                yield event

    async def signal_task(
        self, request: driver_pb2.SignalTaskRequest
    ) -> driver_pb2.SignalTaskResponse:
        """Sends a signal."""
        await self._gateway.signal_task(request.task_id, request.signal)
        return driver_pb2.SignalTaskResponse()

    async def exec_task(self, request: driver_pb2.ExecTaskRequest) -> driver_pb2.ExecTaskResponse:
        """Runs a command, for script checks and change scripts."""
        command = exec_stream.command(request.command)
        timeout_s = conversions.seconds(request.timeout)
        done = await self._gateway.exec_task(request.task_id, command, timeout_s)
        return conversions.exec_result(done)

    async def exec_task_streaming(
        self, requests: AsyncIterator[driver_pb2.ExecTaskStreamingRequest]
    ) -> AsyncGenerator[driver_pb2.ExecTaskStreamingResponse, None]:
        """Runs a command with its streams; the first message says which."""
        client = exec_stream.ExecClient(requests)
        setup = await client.setup()
        outputs = self._gateway.exec_task_streaming(
            setup.task_id, list(setup.command), tty=setup.tty, inputs=client.inputs()
        )
        answers = exec_stream.answers(outputs, client.gone)
        async with aclosing(answers):
            async for answer in answers:
                yield answer

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


async def _decoded(decode: Callable[[T], U], given: T, size_bytes: int) -> U:
    """Returns what `decode` makes of a text that a job sizes; a long one keeps no call waiting."""
    if size_bytes <= _SMALL_BYTES:
        return decode(given)
    return await asyncio.to_thread(decode, given)
