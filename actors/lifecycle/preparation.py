"""Checks a job against this node, before a start creates or pulls anything."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

from actors.blocking import file_servers
from actors.checks import rootless
from actors.files.state_dir import pins_directory
from actors.images import emulators
from actors.lifecycle import cgroup, plan
from actors.lifecycle.plan import Preparation
from actors.model import confinement
from actors.processes import known_escapes, runtime_versions
from actors.provision import gates, host_resources, mount_sources, shared_namespaces
from actors.provision.shared_namespaces import SharedNamespaces
from containerd.security.policy import for_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.model.node import Node
    from actors.model.nomad import TaskConfig
    from actors.model.settings import TaskOptions
    from actors.provision.host_resources import HostParts


async def prepare(
    node: Node,
    task: TaskConfig,
    options: TaskOptions,
    report: Callable[[str], None] | None = None,
) -> Preparation:
    """Plans a start, and reads the node's resources for the task. Changes nothing.

    Args:
        node: the driver's settings and the machine.
        task: Nomad's description of the task.
        options: the job's options.
        report: gets a sentence when a file server delays the start.

    Raises:
        DriverError: code INVALID or DENIED; the job cannot run here. Code UNAVAILABLE; a file
            server gives no answer.
    """
    if not node.rootless:
        await cgroup.check_disk(node, options)
    shared = SharedNamespaces()
    if shared_namespaces.wishes(options):
        gates.check(node.settings.gates_of(task.namespace), options)
        shared = await shared_namespaces.opened(node, task, options)

    def check() -> Preparation:
        gates.check_shared(node.settings.gates_of(task.namespace), shared.of_node)
        if options.init and node.settings.init_path:
            file_servers.visit(node.settings.init_path, "init_path")
        planned = plan.make(node, task, options)
        rootless.check(node, options, planned.runtime)
        emulators.check(planned.image.platform)
        cgroup.check_cpuset(task.resources, options, cgroup_v2=node.cgroup_v2)
        cgroup.check_open_files(options)
        wanted = confinement.request(node.settings, options, task.namespace)
        if wanted.seccomp_profile:
            file_servers.visit(wanted.seccomp_profile_dir, "seccomp_profile_dir")
        security = for_task(wanted)
        pins = pins_directory(node.state_dir, planned.container_id)
        parts = host_resources.gather(
            node.settings,
            shared_namespaces.with_network(task, options, shared),
            options,
            hostname=planned.hostname,
            pins=pins,
            runtime=planned.runtime,
        )
        rootless.check_limits(plan.rlimits(node, options, parts.daemon), parts.daemon)
        contexts = confinement.contexts(node.settings, task, options)
        relabels = parts.relabels if contexts.process else ()
        parts = dataclasses.replace(
            parts, relabels=tuple(filter(mount_sources.may_relabel, relabels))
        )
        rro = runtime_versions.takes_rro(planned.runtime)
        limits = dataclasses.replace(planned.limits, io_rates=cgroup.disk_rates(options))
        return Preparation(
            node=node,
            task=task,
            options=options,
            plan=dataclasses.replace(
                planned,
                security=security,
                contexts=contexts,
                recursive_readonly=rro,
                limits=limits,
            ),
            parts=parts,
            shared=shared,
        )

    try:
        return await file_servers.run_probed(check, report)
    except BaseException:
        shared.close()
        raise


async def check_holes(node: Node, prepared: Preparation) -> None:
    """Refuses a start on a node with a known hole, if the operator allows none.

    Raises:
        DriverError: code DENIED; the text names the hole and the releases to install.
    """
    if node.settings.gates_of(prepared.task.namespace).allow_known_holes:
        return
    version = await node.containerd.version()
    runtime = prepared.plan.runtime
    if reason := await asyncio.to_thread(known_escapes.of_node, runtime, version.version):
        raise known_escapes.refused(reason)


async def probe_servers(parts: HostParts) -> None:
    """Probes the file servers of a task's mounts again.

    Raises:
        DriverError: code UNAVAILABLE; a server gives no answer.
    """

    def visit_all() -> None:
        for point in parts.mounts:
            if point.type == "bind":
                file_servers.visit(point.source, f"mount at {point.target[:128]}")

    await file_servers.run_probed(visit_all)
