"""Plan of a job on this machine: allocations, and the driver's input for each task."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.model import cpu_topology
from actors.model.cpu_topology import NodeSpeed
from actors.model.nomad import (
    DnsConfig,
    MountConfig,
    NetworkIsolation,
    PortMapping,
    Resources,
    TaskConfig,
)
from plugin.host.job.jobfile import Job, JobGroup, JobTask
from plugin.host.network import namespaces
from plugin.host.network.cni import Attached
from plugin.host.network.ports import HostPorts
from plugin.host.run import interpolation
from plugin.host.run.allocdir import AllocDir
from plugin.host.run.machine import HostVolume
from proto.errors import Code, DriverError
from proto.values import dataclass

_MIB = 1024 * 1024
_ISOLATED = 1  # NetworkIsolationSpec.GROUP in Nomad's protocol: a namespace for the group


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTask:
    """A task of an allocation; `options` is the config block with replaced references."""

    label: str
    task: JobTask
    config: TaskConfig
    options: Mapping[str, Any]
    alloc: AllocDir


@dataclass(frozen=True, slots=True, kw_only=True)
class Alloc:
    """An allocation: directory, network and tasks; `netns` is empty in mode "host"."""

    id: str
    label: str
    directory: AllocDir
    tasks: tuple[PlannedTask, ...]
    mode: str = "host"
    netns: str = ""
    ports: tuple[PortMapping, ...] = ()


def allocations(
    job: Job, root: Path, ports: HostPorts, volumes: Mapping[str, HostVolume], node_id: str = ""
) -> list[Alloc]:
    """Plans all allocations of a job and chooses ports; creates no file.

    Args:
        job: the job.
        root: directory of the allocation directories.
        ports: ports of this run.
        volumes: host volumes of this machine, by name.
        node_id: name of the run, which becomes the owner label of the tasks.

    Raises:
        DriverError: a port is not free, or this machine has no such volume.
    """
    allocs: list[Alloc] = []
    speed = cpu_topology.measure()
    for group in job.groups:
        for index in range(group.count):
            alloc_id = str(uuid.uuid4())
            label = group.name if group.count == 1 else f"{group.name}[{index}]"
            chosen = ports.choose(f'group "{label}"', group.network)
            shared = _Shared(
                alloc=interpolation.AllocIdentity(id=alloc_id, index=index, ports=chosen),
                directory=AllocDir(root, alloc_id),
                netns="" if group.network.mode == "host" else namespaces.path(alloc_id),
                volumes=_sources(group, index, volumes),
                node_id=node_id,
                speed=speed,
            )
            allocs.append(
                Alloc(
                    id=alloc_id,
                    label=label,
                    directory=shared.directory,
                    tasks=tuple(_planned(job, group, task, shared) for task in group.tasks),
                    mode=group.network.mode,
                    netns=shared.netns,
                    ports=chosen,
                )
            )
    return allocs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """Facts that all tasks of an allocation share."""

    alloc: interpolation.AllocIdentity
    directory: AllocDir
    netns: str
    volumes: Mapping[str, HostVolume]
    node_id: str
    speed: NodeSpeed


def _sources(
    group: JobGroup, index: int, volumes: Mapping[str, HostVolume]
) -> dict[str, HostVolume]:
    """Returns the host volumes of a group, by name in the group."""
    sources: dict[str, HostVolume] = {}
    for name, wanted in group.volumes.items():
        source = f"{wanted.source}[{index}]" if wanted.per_alloc else wanted.source
        if source not in volumes:
            known = f"; known: {', '.join(sorted(volumes))}" if volumes else ""
            raise DriverError(
                f'group "{group.name}": volume "{name}": this machine has no host volume'
                f' "{source}"{known}',
                resolution=f"set --host-volume {source}=PATH",
                code=Code.INVALID,
            )
        volume = volumes[source]
        sources[name] = HostVolume(path=volume.path, read_only=volume.read_only or wanted.read_only)
    return sources


def build(alloc: Alloc) -> None:
    """Creates the directories, FIFOs and templates of an allocation.

    Raises:
        DriverError: a file cannot be created, or a template cannot be rendered.
    """
    alloc.directory.build([planned.task.name for planned in alloc.tasks])
    _render(alloc)


def attached(alloc: Alloc, end: Attached) -> Alloc:
    """Returns the allocation with its address in the environment, options and templates of tasks.

    Raises:
        DriverError: a template cannot be written.
    """
    known = interpolation.addresses(alloc.ports, end)
    tasks = []
    for planned in alloc.tasks:
        # References that had no value before are still in the strings.
        env = {key: interpolation.expand(text, known) for key, text in planned.config.env.items()}
        config = replace(planned.config, env={**known, **env})
        options = interpolation.expand(planned.options, known)
        tasks.append(replace(planned, config=config, options=options))
    ready = replace(alloc, tasks=tuple(tasks))
    _render(ready)
    return ready


def _render(alloc: Alloc) -> None:
    for planned in alloc.tasks:
        env = planned.config.env
        for template in planned.task.templates:
            try:
                text = interpolation.render(template.data, env)
            except ValueError as error:
                raise DriverError(f"{planned.label}: {error}", code=Code.INVALID) from error
            destination = interpolation.destination(template.destination, env)
            alloc.directory.write(planned.task.name, template, destination, text)


def _label(job: Job, group: JobGroup, task: JobTask, index: int) -> str:
    """Returns the shortest label that differs from the labels of the job's other tasks."""
    words = [task.name]
    if group.count > 1:
        words[0] = f"{task.name}[{index}]"
    if len(job.groups) > 1 and (group.name != task.name or len(group.tasks) > 1):
        words.insert(0, group.name)
    return ".".join(words)


def _planned(job: Job, group: JobGroup, task: JobTask, shared: _Shared) -> PlannedTask:
    identity = shared.alloc
    env = interpolation.environment(job, group, task, identity)
    known = {**interpolation.node(job), **env}
    alloc = shared.directory
    config = TaskConfig(
        id=f"{identity.id}/{task.name}/{uuid.uuid4().hex[:8]}",
        name=task.name,
        alloc_id=identity.id,
        job_id=job.id,
        job_name=job.name or job.id,
        task_group_name=group.name,
        namespace=job.namespace,
        node_name=known["node.unique.name"],
        node_id=shared.node_id,
        env=env,
        resources=Resources(
            cpu_shares=task.cpu_mhz,
            memory_mb=task.memory_mb,
            memory_max_mb=task.memory_max_mb,
            percent_ticks=shared.speed.share(task.cpu_mhz),
            memory_limit_bytes=max(task.memory_mb, task.memory_max_mb) * _MIB,
            ports=identity.ports,
        ),
        mounts=_mounts(task, shared.volumes, known),
        user=interpolation.expand(task.user, known),
        alloc_dir=str(alloc.path),
        stdout_path=str(alloc.fifo(task.name, "stdout")),
        stderr_path=str(alloc.fifo(task.name, "stderr")),
        network=NetworkIsolation(mode=_ISOLATED, path=shared.netns) if shared.netns else None,
        dns=_dns(group.network.dns, known),
    )
    return PlannedTask(
        label=_label(job, group, task, identity.index),
        task=task,
        config=config,
        options=interpolation.expand(task.config, known),
        alloc=alloc,
    )


def _mounts(
    task: JobTask, volumes: Mapping[str, HostVolume], known: Mapping[str, str]
) -> tuple[MountConfig, ...]:
    return tuple(
        MountConfig(
            task_path=interpolation.expand(mount.destination, known),
            host_path=volumes[mount.volume].path,
            readonly=mount.read_only or volumes[mount.volume].read_only,
            propagation_mode=mount.propagation_mode,
            selinux_label=mount.selinux_label,
        )
        for mount in task.mounts
    )


def _dns(dns: DnsConfig | None, known: Mapping[str, str]) -> DnsConfig | None:
    if dns is None:
        return None
    return DnsConfig(
        servers=tuple(interpolation.expand(list(dns.servers), known)),
        searches=tuple(interpolation.expand(list(dns.searches), known)),
        options=tuple(interpolation.expand(list(dns.options), known)),
    )
