"""What the driver tells Nomad of this node: containerd's health and what can be used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from actors.blocking import file_servers
from actors.health import runtime_programs
from actors.health.runtime_programs import RuntimeProgram, RuntimeWatch
from actors.model.nomad import Fingerprint, Health
from containerd.api import deadlines, features
from containerd.security import known_holes
from proto.errors import DriverError
from proto.release import RELEASE

if TYPE_CHECKING:
    from actors.lifecycle.running import Services

_HEALTHY_S = 10.0
_UNHEALTHY_S = 1.0
_LOOK_S = 5.0
_KNOWN_S = 0.2
_log = logging.getLogger(__name__)

DISABLED = Fingerprint(
    health=Health.UNDETECTED,
    description="disabled: enabled = false in the plugin's config",
    attributes={},
)


async def watch(services: Services) -> AsyncGenerator[Fingerprint, None]:
    """A fingerprint at once, then whenever it changes, for ever."""
    last: Fingerprint | None = None
    programs = RuntimeWatch()
    programs.found()
    # What was found before is read at once; a program that has to be tried is told when it was.
    await programs.pause(_KNOWN_S)
    while True:
        now = await take(services, programs.found())
        if now != last:
            if last is not None:
                _log.info("health changed", extra={"description": now.description})
            yield now
        last = now
        await programs.pause(_HEALTHY_S if now.health is Health.HEALTHY else _UNHEALTHY_S)


def _description() -> str:
    """The driver is healthy while a file server is not: tasks that need none of it start."""
    places = ", ".join(server.point for server in file_servers.silent())
    if not places:
        return "Healthy"
    return f"Healthy, but no file server answers at {places}: tasks with mounts there do not start"


async def take(services: Services, programs: tuple[RuntimeProgram, ...] = ()) -> Fingerprint:
    """One look at containerd and the launcher. Never raises: what is wrong is in the words."""
    if not services.settings.enabled:
        return DISABLED
    try:
        with deadlines.within(_LOOK_S):
            version = await services.containerd.version()
        await services.launcher.ensure()
    except DriverError as error:
        return Fingerprint(health=Health.UNHEALTHY, description=str(error), attributes={})
    holes = await asyncio.to_thread(known_holes.of, "containerd", version.version)
    offered = runtime_programs.offered(programs, services.settings.containerd_runtime)
    return Fingerprint(
        health=Health.HEALTHY,
        description=_description(),
        attributes={
            "driver.containerd-driver": True,
            "driver.containerd-driver.version": RELEASE,
            "driver.containerd-driver.cgroup": "v2" if services.cgroup_v2 else "v1",
            "driver.containerd-driver.privileged": services.settings.allow_privileged,
            "driver.containerd-driver.runtimes": ",".join(offered),
            "driver.containerd.containerd_version": version.version,
            "driver.containerd.containerd_revision": version.revision,
            **{f"driver.containerd.{k}": has for k, has in features.of(version.version).items()},
            **_of_programs(programs),
            **({"driver.containerd.known_holes": ",".join(h.cve for h in holes)} if holes else {}),
        },
    )


def _of_programs(programs: tuple[RuntimeProgram, ...]) -> dict[str, str]:
    """Versions of the runtimes, and their known holes where they have some."""
    found: dict[str, str] = {}
    for program in programs:
        name = f"driver.containerd-driver.{program.name}"
        if program.version:
            found[f"{name}.version"] = program.version
        if program.holes:
            found[f"{name}.known_holes"] = ",".join(program.holes)
    return found
