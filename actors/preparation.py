"""What a start looks at before it makes or pulls anything: the job against this machine."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

from actors import host_parts, identifiers, plan
from actors.host_parts import HostParts
from actors.plan import Plan
from containerd import security
from containerd.security import Security

if TYPE_CHECKING:
    from actors.node import Node
    from actors.nomad_types import TaskConfig
    from actors.settings import TaskOptions


async def prepare(node: Node, task: TaskConfig, options: TaskOptions) -> tuple[Plan, HostParts]:
    """The plan of a start, and what the task will have of its host. Changes nothing.

    Raises:
        DriverError: code INVALID or DENIED; the job asks for what cannot be here.
    """
    made = plan.make(node, task, options)
    wish = plan.wish(node.settings, options)
    pins = identifiers.pins_directory(node.state_dir, made.container_id)

    def look() -> tuple[Security, HostParts]:
        allowed = security.for_task(wish)
        return allowed, host_parts.gather(
            node.settings, task, options, hostname=made.hostname, pins=pins
        )

    allowed, parts = await asyncio.to_thread(look)
    return dataclasses.replace(made, security=allowed), parts
