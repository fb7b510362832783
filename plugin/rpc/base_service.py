"""RPCs of every plugin: identity, config schema, configuration, health, end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from plugin import options
from plugin.options import hcl_schema
from proto.nomad import base_pb2, goplugin_pb2, health_pb2
from proto.release import RELEASE

if TYPE_CHECKING:
    from actors.gateway import Gateway

NAME = "containerd-driver"
# The only version of Nomad 1.0 to 2.0 (plugins/drivers/versions.go).
_API_VERSION = "v0.1.0"
_log = logging.getLogger(__name__)


class BaseService:
    """Methods of the services BasePlugin, GRPCController and Health.

    Args:
        gateway: returns the gateway; the first call starts the actors.
    """

    def __init__(self, gateway: Callable[[], Gateway]) -> None:
        self._gateway = gateway

    async def plugin_info(self, _: base_pb2.PluginInfoRequest) -> base_pb2.PluginInfoResponse:
        """Returns name, type and versions."""
        return base_pb2.PluginInfoResponse(
            type=base_pb2.DRIVER,
            plugin_api_versions=[_API_VERSION],
            plugin_version=f"v{RELEASE}",
            name=NAME,
        )

    async def config_schema(self, _: base_pb2.ConfigSchemaRequest) -> base_pb2.ConfigSchemaResponse:
        """Returns the schema of the plugin block."""
        return base_pb2.ConfigSchemaResponse(spec=hcl_schema.schema(options.DRIVER_OPTIONS))

    async def set_config(self, request: base_pb2.SetConfigRequest) -> base_pb2.SetConfigResponse:
        """Reads the plugin block; Nomad calls the method several times, also on probed plugins."""
        total_mhz, cores = _topology(request)
        settings = options.driver_settings(request.msgpack_config, total_mhz=total_mhz, cores=cores)
        for sentence in settings.warnings:
            _log.warning("an option of the plugin block has no effect", extra={"reason": sentence})
        await self._gateway().configure(settings)
        return base_pb2.SetConfigResponse()

    async def controller_shutdown(self, _: goplugin_pb2.Empty) -> goplugin_pb2.Empty:
        """Answers go-plugin's Kill; the process ends after the answer, and tasks go on."""
        _log.info("the agent ends the plugin; tasks go on")
        return goplugin_pb2.Empty()

    async def check(self, _: health_pb2.HealthCheckRequest) -> health_pb2.HealthCheckResponse:
        """Answers gRPC's health check: serving."""
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


def _topology(request: base_pb2.SetConfigRequest) -> tuple[int, int]:
    """Returns (MHz of all cores, number of cores); both are 0 from a Nomad before 1.7.

    Cores that Nomad must not use count too, because they count in Nomad's own ticks of a process
    (client/lib/cpustats/stats.go, TotalCompute and NumCores in client/lib/numalib).
    """
    topology = request.nomad_config.driver.Topology
    mhz = sum(core.base_speed or core.max_speed or core.guess_speed for core in topology.cores)
    return int(topology.override_total_compute or mhz), len(topology.cores)
