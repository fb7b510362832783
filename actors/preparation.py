"""What a start looks at before it makes or pulls anything: the job against this machine."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

from actors import host_parts, identifiers, plan
from actors.host_parts import HostParts
from actors.plan import Plan
from containerd import security

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
    allowed = await asyncio.to_thread(security.for_task, plan.wish(node.settings, options))
    pins = identifiers.pins_directory(node.state_dir, made.container_id)
    parts = await asyncio.to_thread(host_parts.gather, node.settings, task, options, pins)
    return dataclasses.replace(made, security=allowed), parts
