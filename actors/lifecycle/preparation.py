"""What a start looks at before it makes or pulls anything: the job against this machine."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from actors.blocking import file_servers
from actors.files.state_dir import pins_directory
from actors.lifecycle import plan
from actors.lifecycle.plan import Plan
from actors.processes import runtime_versions
from actors.provision import host_resources
from actors.provision.host_resources import HostParts
from containerd.security.policy import for_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.model.node import Node
    from actors.model.nomad import TaskConfig
    from actors.model.settings import TaskOptions


async def prepare(
    node: Node,
    task: TaskConfig,
    options: TaskOptions,
    tell: Callable[[str], None] | None = None,
) -> tuple[Plan, HostParts]:
    """The plan of a start, and what the task will have of its host. Changes nothing.

    tell hears of a file server that lets it wait.

    Raises:
        DriverError: code INVALID or DENIED; the job asks for what cannot be here. UNAVAILABLE; a
            file server does not answer.
    """

    def look() -> tuple[Plan, HostParts]:
        if options.init and node.settings.init_path:
            file_servers.visit(node.settings.init_path, "init_path")
        made = plan.make(node, task, options)
        wish = plan.wish(node.settings, options)
        if wish.seccomp_profile:
            file_servers.visit(wish.seccomp_profile_dir, "seccomp_profile_dir")
        allowed = for_task(wish)
        pins = pins_directory(node.state_dir, made.container_id)
        parts = host_resources.gather(
            node.settings, task, options, hostname=made.hostname, pins=pins
        )
        rro = runtime_versions.takes_rro(made.runtime)
        return dataclasses.replace(made, security=allowed, recursive_readonly=rro), parts

    return await file_servers.looked_at(look, tell)


async def ask_servers(parts: HostParts) -> None:
    """Asks the file servers of a task's mounts again.

    Raises:
        DriverError: code UNAVAILABLE; one does not answer.
    """

    def look() -> None:
        for point in parts.mounts:
            if point.type == "bind":
                file_servers.visit(point.source, f"mount at {point.target[:128]}")

    await file_servers.looked_at(look)
