"""The plugin process: what starts in which order, and ends in reverse.

socket directory → gateway (actors) → gRPC server → handshake line → until told to leave
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from typing import Any

import grpc

from actors.gateway import Gateway
from plugin.base_service import BaseService
from plugin.driver_service import DriverService
from plugin.grpc_status import both_streams, server_stream, unary
from plugin.handshake import Rendezvous
from proto.nomad import base_pb2, driver_pb2, goplugin_pb2, health_pb2

_log = logging.getLogger(__name__)
_SERVER_OPTIONS: list[tuple[str, Any]] = [
    # A job's environment may be megabytes; the host sends up to 2 GiB.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
]
# For the answer to Shutdown to leave before the process does.
_LAST_WORDS_S = 0.02


def _actors() -> Gateway:
    from actors.driver import ActorGateway  # noqa: PLC0415 - probes never get that far in time

    return ActorGateway()


def run(make_gateway: Callable[[], Gateway] = _actors) -> int:
    """Serves one Nomad agent until it says Shutdown or the process gets SIGTERM."""
    status = asyncio.run(_serve(make_gateway))
    # Non-daemon threads of gRPC or an executor must not hold the process: Nomad waits 2 s.
    os._exit(status)


async def _serve(make_gateway: Callable[[], Gateway]) -> int:
    leaving = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Ctrl-C on an agent in the foreground reaches its plugins too; the agent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop.add_signal_handler(signal.SIGTERM, leaving.set)
    rendezvous = Rendezvous()
    try:
        gateway = make_gateway()
        server = grpc.aio.server(options=_SERVER_OPTIONS)

        def leave() -> None:
            loop.call_later(_LAST_WORDS_S, leaving.set)

        base, driver = BaseService(gateway, leave), DriverService(gateway)
        server.add_generic_rpc_handlers((*_base_handlers(base), _driver_handlers(driver)))
        server.add_insecure_port(f"unix:{rendezvous.socket}")
        await server.start()
        rendezvous.announce()
        await leaving.wait()
        return 0
    finally:
        # Nomad takes a plugin that fails calls for 3 s without leaving for a dead task.
        rendezvous.remove()


def _handler(
    behaviour: Any, kind: Callable[..., Any], request: Any, response: Any
) -> grpc.RpcMethodHandler[Any, Any]:
    return kind(  # type: ignore[no-any-return]
        behaviour,
        request_deserializer=request.FromString,
        response_serializer=response.SerializeToString,
    )


def _base_handlers(base: BaseService) -> tuple[grpc.GenericRpcHandler[Any, Any], ...]:
    one = grpc.unary_unary_rpc_method_handler
    plugin = {
        "PluginInfo": _handler(
            unary(base.plugin_info),
            one,
            base_pb2.PluginInfoRequest,
            base_pb2.PluginInfoResponse,
        ),
        "ConfigSchema": _handler(
            unary(base.config_schema),
            one,
            base_pb2.ConfigSchemaRequest,
            base_pb2.ConfigSchemaResponse,
        ),
        "SetConfig": _handler(
            unary(base.set_config), one, base_pb2.SetConfigRequest, base_pb2.SetConfigResponse
        ),
    }
    controller = _handler(
        unary(base.controller_shutdown), one, goplugin_pb2.Empty, goplugin_pb2.Empty
    )
    check = _handler(
        unary(base.check), one, health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
    )
    handlers = grpc.method_handlers_generic_handler
    return (
        handlers("hashicorp.nomad.plugins.base.proto.BasePlugin", plugin),
        handlers("plugin.GRPCController", {"Shutdown": controller}),
        handlers("grpc.health.v1.Health", {"Check": check}),
    )


def _driver_handlers(driver: DriverService) -> grpc.GenericRpcHandler[Any, Any]:
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for name, behaviour in (
        ("Init", driver.init),
        ("TaskConfigSchema", driver.task_config_schema),
        ("Capabilities", driver.capabilities),
        ("RecoverTask", driver.recover_task),
        ("StartTask", driver.start_task),
        ("WaitTask", driver.wait_task),
        ("StopTask", driver.stop_task),
        ("DestroyTask", driver.destroy_task),
        ("InspectTask", driver.inspect_task),
        ("Shutdown", driver.shutdown),
        ("SignalTask", driver.signal_task),
        ("ExecTask", driver.exec_task),
        ("CreateNetwork", driver.create_network),
        ("DestroyNetwork", driver.destroy_network),
    ):
        methods[name] = _driver_method(
            name,
            unary(behaviour),
            grpc.unary_unary_rpc_method_handler,
        )
    for name, stream in (
        ("Fingerprint", driver.fingerprint),
        ("TaskStats", driver.task_stats),
        ("TaskEvents", driver.task_events),
    ):
        methods[name] = _driver_method(
            name,
            server_stream(stream),
            grpc.unary_stream_rpc_method_handler,
        )
    methods["ExecTaskStreaming"] = _driver_method(
        "ExecTaskStreaming",
        both_streams(driver.exec_task_streaming),
        grpc.stream_stream_rpc_method_handler,
    )
    return grpc.method_handlers_generic_handler(
        "hashicorp.nomad.plugins.drivers.proto.Driver", methods
    )


def _driver_method(
    name: str, behaviour: Any, kind: Callable[..., Any]
) -> grpc.RpcMethodHandler[Any, Any]:
    request = getattr(driver_pb2, f"{name}Request")
    # The one answer that is not called after its method.
    answer = "DriverTaskEvent" if name == "TaskEvents" else f"{name}Response"
    return _handler(behaviour, kind, request, getattr(driver_pb2, answer))
