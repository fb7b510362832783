"""`containerd-driver spec JOB`: prints the OCI spec that each task of a job would get."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.lifecycle import spec_preview
from actors.model import cpu_topology
from actors.model.node import Node, this_node
from actors.model.settings import DriverSettings
from plugin import options
from plugin.cli import console, host_arguments, plugin_block
from plugin.host.agent import hcl_config
from plugin.host.job import jobfile
from plugin.host.network.ports import HostPorts
from plugin.host.run import alloc_plan
from plugin.host.run.alloc_plan import PlannedTask
from plugin.host.run.machine import HostOptions
from plugin.options import hcl_schema
from proto.errors import Code, DriverError

_STAND_IN = "/proc/self/ns/net"


def run(arguments: Namespace) -> int:
    """Prints the specs and returns the exit status.

    Raises:
        DriverError: a task could not start.
    """
    try:
        variables = plugin_block.pairs(arguments.var, "--var")
        settings = plugin_block.settings(arguments.config_file, arguments.config)
        host = host_arguments.read(arguments)
    except DriverError as error:
        console.complain(str(error))
        return console.WRONG_OPTIONS
    job = jobfile.load(arguments.job, variables)
    specs = asyncio.run(_specs(job, settings, host, arguments.task))
    shown = specs if len(specs) != 1 else next(iter(specs.values()))
    console.show(f"{json.dumps(shown, indent=2)}\n")
    return 0


async def _specs(
    job: jobfile.Job, settings: DriverSettings, host: HostOptions, only: str
) -> dict[str, Any]:
    node = this_node(cpu_topology.completed(settings))
    specs: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory(prefix="containerd-driver-") as root,
        contextlib.closing(HostPorts(host.address, hold=False)) as ports,
    ):
        allocs = alloc_plan.allocations(job, Path(root), ports, host.volumes)
        try:
            for alloc in allocs:
                alloc_plan.build(alloc)
                for planned in alloc.tasks:
                    if only in {"", planned.task.name}:
                        specs[planned.label] = await _spec(node, planned)
        finally:
            await node.containerd.close()
    if not specs:
        raise DriverError(f"the job has no task {only!r}", code=Code.INVALID)
    return specs


async def _spec(node: Node, planned: PlannedTask) -> dict[str, Any]:
    config, network = planned.config, planned.config.network
    if network is not None:
        # A start enters the namespace of the allocation; a preview creates none.
        config = replace(config, network=replace(network, path=_STAND_IN))
    try:
        packed = hcl_config.encode(hcl_schema.schema(options.TASK_OPTIONS), planned.options)
        preview = await spec_preview.preview(node, config, options.task_options(packed))
    except DriverError as error:
        raise error.replaced(brief=f"{planned.label}: {error.brief}") from error
    for note in preview.notes:
        console.report(f"{planned.label}: {note}")
    for namespace in preview.document["linux"]["namespaces"]:
        if network is not None and namespace.get("path") == _STAND_IN:
            namespace["path"] = network.path
    return preview.document
