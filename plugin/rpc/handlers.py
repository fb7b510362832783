"""Tables of the gRPC services: each method with its handler and its messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import grpc

from plugin.rpc.base_service import BaseService
from plugin.rpc.grpc_status import both_streams, last, server_stream, unary
from proto.nomad import base_pb2, goplugin_pb2, health_pb2

if TYPE_CHECKING:
    from actors.gateway import Gateway

    # The stubs are generic, gRPC's own classes are not.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Table = Mapping[str, Mapping[str, Handler]]

_PLUGIN = "hashicorp.nomad.plugins.base.proto.BasePlugin"
_CONTROLLER = "plugin.GRPCController"
_HEALTH = "grpc.health.v1.Health"
BASE_SERVICES = frozenset({_PLUGIN, _CONTROLLER, _HEALTH})
DRIVER_SERVICE = "hashicorp.nomad.plugins.drivers.proto.Driver"


def base(gateway: Callable[[], Gateway], leave: Callable[[], object]) -> Table:
    """Returns the handlers of the services that every plugin has.

    Args:
        gateway: returns the gateway of the process.
        leave: ends the process.
    """
    service = BaseService(gateway)
    info, schema, config = service.plugin_info, service.config_schema, service.set_config
    health = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
    return {
        _PLUGIN: {
            "PluginInfo": _one(info, base_pb2.PluginInfoRequest, base_pb2.PluginInfoResponse),
            "ConfigSchema": _one(
                schema, base_pb2.ConfigSchemaRequest, base_pb2.ConfigSchemaResponse
            ),
            "SetConfig": _one(config, base_pb2.SetConfigRequest, base_pb2.SetConfigResponse),
        },
        _CONTROLLER: {
            "Shutdown": _handler(
                grpc.unary_unary_rpc_method_handler,
                last(service.controller_shutdown, leave),
                goplugin_pb2.Empty,
                goplugin_pb2.Empty,
            )
        },
        _HEALTH: {"Check": _one(service.check, *health)},
    }


def driver(gateway: Gateway) -> Table:
    """Returns the handlers of Nomad's Driver service."""
    from plugin.rpc.driver_service import DriverService  # noqa: PLC0415 - not for the first probe
    from proto.nomad import driver_pb2  # noqa: PLC0415

    def messages(name: str) -> tuple[Any, Any]:
        return getattr(driver_pb2, f"{name}Request"), getattr(driver_pb2, f"{name}Response")

    service = DriverService(gateway)
    unaries = {
        "Init": service.init,
        "TaskConfigSchema": service.task_config_schema,
        "Capabilities": service.capabilities,
        "RecoverTask": service.recover_task,
        "StartTask": service.start_task,
        "WaitTask": service.wait_task,
        "StopTask": service.stop_task,
        "DestroyTask": service.destroy_task,
        "InspectTask": service.inspect_task,
        "Shutdown": service.shutdown,
        "SignalTask": service.signal_task,
        "ExecTask": service.exec_task,
        "CreateNetwork": service.create_network,
        "DestroyNetwork": service.destroy_network,
    }
    methods = {name: _one(method, *messages(name)) for name, method in unaries.items()}
    events = driver_pb2.TaskEventsRequest, driver_pb2.DriverTaskEvent
    methods |= {
        "Fingerprint": _stream(service.fingerprint, *messages("Fingerprint")),
        "TaskStats": _stream(service.task_stats, *messages("TaskStats")),
        "TaskEvents": _stream(service.task_events, *events),
        "ExecTaskStreaming": _handler(
            grpc.stream_stream_rpc_method_handler,
            both_streams(service.exec_task_streaming),
            *messages("ExecTaskStreaming"),
        ),
    }
    return {DRIVER_SERVICE: methods}


def _stream(method: Any, request: Any, response: Any) -> Handler:
    return _handler(grpc.unary_stream_rpc_method_handler, server_stream(method), request, response)


def _one(method: Any, request: Any, response: Any) -> Handler:
    return _handler(grpc.unary_unary_rpc_method_handler, unary(method), request, response)


def _handler(kind: Callable[..., Any], behaviour: Any, request: Any, response: Any) -> Handler:
    handler: Handler = kind(
        behaviour,
        request_deserializer=request.FromString,
        response_serializer=response.SerializeToString,
    )
    return handler
