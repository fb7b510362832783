"""Fingerprints for Nomad: health of the driver, and attributes of the node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from actors.blocking import file_servers
from actors.health import confinement_checks, place_checks, runtime_programs
from actors.health.runtime_programs import RuntimeProgram, RuntimeWatch
from actors.model.nomad import Fingerprint, Health
from actors.processes import known_escapes
from containerd import runtimes
from containerd.api import deadlines, features
from containerd.security import apparmor, known_holes, selinux
from proto.errors import DriverError
from proto.release import RELEASE

if TYPE_CHECKING:
    from actors.lifecycle.running import Services
    from actors.model.settings import DriverSettings

_HEALTHY_S = 10.0
_UNHEALTHY_S = 1.0
_CALL_S = 5.0
_log = logging.getLogger(__name__)

DISABLED = Fingerprint(
    health=Health.UNDETECTED,
    description="disabled: enabled = false in the plugin's config",
    attributes={},
)


async def watch(services: Services) -> AsyncGenerator[Fingerprint, None]:
    """Yields a fingerprint at once, and a new fingerprint after each change. Never ends."""
    last: Fingerprint | None = None
    programs = RuntimeWatch()
    # A program that must be probed is reported after the probe.
    await programs.read_stored()
    while True:
        now = await take(services, programs.programs())
        if now != last:
            if last is not None:
                _log.info("fingerprint changed", extra={"reason": now.description})
            yield now
        last = now
        await programs.pause(_HEALTHY_S if now.health is Health.HEALTHY else _UNHEALTHY_S)


def _description(settings: DriverSettings) -> str:
    """Describes a healthy driver. A silent file server only affects tasks with mounts there."""
    profile = confinement_checks.shortfall(settings)
    points = ", ".join(server.point for server in file_servers.silent())
    if not points:
        return f"Healthy, but {profile}" if profile else "Healthy"
    text = f"Healthy, but no file server answers at {points}: tasks with mounts there do not start"
    return f"{text}; {profile}" if profile else text


async def take(services: Services, programs: tuple[RuntimeProgram, ...] = ()) -> Fingerprint:
    """Probes containerd and the launcher. Never raises: the description names a problem."""
    if not services.settings.enabled:
        return DISABLED
    try:
        with deadlines.within(_CALL_S):
            version = await services.containerd.version()
        await services.launcher.ensure()
    except DriverError as error:
        return Fingerprint(health=Health.UNHEALTHY, description=str(error), attributes={})
    if fault := await asyncio.to_thread(place_checks.problem, services):
        return Fingerprint(health=Health.UNHEALTHY, description=fault, attributes={})
    if problem := services.apparmor.problem:
        services.apparmor.begin()  # tries again: an operator may have installed the parser
        if services.settings.gates.default_apparmor == apparmor.NAME:
            return Fingerprint(health=Health.UNHEALTHY, description=problem, attributes={})
    if escapes := await _escapes(services.settings, version.version):
        return Fingerprint(health=Health.UNHEALTHY, description=escapes, attributes={})
    holes = await asyncio.to_thread(known_holes.of, "containerd", version.version)
    offered = runtime_programs.offered(programs, services.settings.containerd_runtime)
    return Fingerprint(
        health=Health.HEALTHY,
        description=_description(services.settings),
        attributes={
            "driver.containerd-driver": True,
            "driver.containerd-driver.version": RELEASE,
            "driver.containerd-driver.cgroup": _cgroup(services),
            "driver.containerd-driver.rootless": services.rootless,
            "driver.containerd-driver.privileged": services.settings.gates.allow_privileged,
            "driver.containerd-driver.open_gates": ",".join(services.settings.gates.open()),
            "driver.containerd-driver.selinux": services.settings.selinux_enabled
            and selinux.is_enabled(),
            "driver.containerd-driver.runtimes": ",".join(offered),
            "driver.containerd.containerd_version": version.version,
            "driver.containerd.containerd_revision": version.revision,
            **{f"driver.containerd.{k}": has for k, has in features.of(version.version).items()},
            **_of_programs(programs),
            **({"driver.containerd.known_holes": ",".join(h.cve for h in holes)} if holes else {}),
        },
    )


def _cgroup(services: Services) -> str:
    if not services.cgroups:
        return "none"
    return "v2" if services.cgroup_v2 else "v1"


async def _escapes(settings: DriverSettings, containerd_version: str) -> str:
    """Returns the reason why no task may start here; empty where any job may run despite holes."""
    if any(gates.allow_known_holes for gates in settings.every_gates()):
        return ""
    try:
        runtime = runtimes.resolve(settings.containerd_runtime)
    except DriverError:  # the error of each start names the missing program
        return ""
    return await asyncio.to_thread(known_escapes.of_node, runtime, containerd_version)


def _of_programs(programs: tuple[RuntimeProgram, ...]) -> dict[str, str]:
    """Returns the attributes with versions and known holes of the runtimes."""
    attributes: dict[str, str] = {}
    for program in programs:
        name = f"driver.containerd-driver.{program.name}"
        if program.version:
            attributes[f"{name}.version"] = program.version
        if program.holes:
            attributes[f"{name}.known_holes"] = ",".join(program.holes)
    return attributes
