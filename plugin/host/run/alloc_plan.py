"""What a job comes to on this machine: its allocations and, for each task, what the driver gets."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
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

_MIB = 1024 * 1024
_ISOLATED = 1  # the wire's number for a namespace of the whole group


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTask:
    """One task of one allocation. options is its driver's block, references resolved."""

    label: str
    task: JobTask
    config: TaskConfig
    options: Mapping[str, Any]
    alloc: AllocDir


@dataclass(frozen=True, slots=True, kw_only=True)
class Alloc:
    """One allocation: its directory, its network and its tasks. netns is empty in mode "host"."""

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
    """Every allocation of a job, nothing made on disk yet; its ports are chosen.

    node_id says whose the tasks are.

    Raises:
        DriverError: a port is not free, or this machine has no such volume.
    """
    found: list[Alloc] = []
    speed = cpu_topology.measure()
    for group in job.groups:
        for index in range(group.count):
            alloc_id = str(uuid.uuid4())
            label = group.name if group.count == 1 else f"{group.name}[{index}]"
            place = _Place(
                id=alloc_id,
                index=index,
                directory=AllocDir(root, alloc_id),
                netns="" if group.network.mode == "host" else namespaces.path(alloc_id),
                ports=ports.choose(f'group "{label}"', group.network),
                volumes=_sources(group, index, volumes),
                node_id=node_id,
                speed=speed,
            )
            found.append(
                Alloc(
                    id=alloc_id,
                    label=label,
                    directory=place.directory,
                    tasks=tuple(_planned(job, group, task, place) for task in group.tasks),
                    mode=group.network.mode,
                    netns=place.netns,
                    ports=place.ports,
                )
            )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """What the tasks of an allocation share."""

    id: str
    index: int
    directory: AllocDir
    netns: str
    ports: tuple[PortMapping, ...]
    volumes: Mapping[str, HostVolume]
    node_id: str
    speed: NodeSpeed


def _sources(
    group: JobGroup, index: int, volumes: Mapping[str, HostVolume]
) -> dict[str, HostVolume]:
    """The volumes of a group as this machine has them, by their names in the group."""
    found: dict[str, HostVolume] = {}
    for name, wanted in group.volumes.items():
        source = f"{wanted.source}[{index}]" if wanted.per_alloc else wanted.source
        if source not in volumes:
            there = f"; there are {', '.join(sorted(volumes))}" if volumes else ""
            raise DriverError(
                f'group "{group.name}": volume "{name}": this machine has no host volume'
                f' "{source}"{there}',
                resolution=f"give --host-volume {source}=PATH",
                code=Code.INVALID,
            )
        volume = volumes[source]
        found[name] = HostVolume(path=volume.path, read_only=volume.read_only or wanted.read_only)
    return found


def build(alloc: Alloc) -> None:
    """Makes the directories, FIFOs and templates of an allocation.

    Raises:
        DriverError: the file system does not take it, or a template cannot be rendered.
    """
    alloc.directory.build([planned.task.name for planned in alloc.tasks])
    _render(alloc)


def attached(alloc: Alloc, end: Attached) -> Alloc:
    """The allocation once its namespace has an address, which its tasks may want to know.

    Raises:
        DriverError: a template cannot be written.
    """
    known = interpolation.addresses(alloc.ports, end)
    tasks = []
    for planned in alloc.tasks:
        # What was not known before stands in the strings as it was written.
        own = {key: interpolation.expand(text, known) for key, text in planned.config.env.items()}
        config = replace(planned.config, env={**known, **own})
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
    """As short as it can be told apart from the job's other tasks."""
    words = [task.name]
    if group.count > 1:
        words[0] = f"{task.name}[{index}]"
    if len(job.groups) > 1 and (group.name != task.name or len(group.tasks) > 1):
        words.insert(0, group.name)
    return ".".join(words)


def _planned(job: Job, group: JobGroup, task: JobTask, place: _Place) -> PlannedTask:
    env = interpolation.environment(job, group, task, place.id, place.index, place.ports)
    known = {**interpolation.node(job), **env}
    alloc = place.directory
    config = TaskConfig(
        id=f"{place.id}/{task.name}/{uuid.uuid4().hex[:8]}",
        name=task.name,
        alloc_id=place.id,
        job_id=job.id,
        job_name=job.name or job.id,
        task_group_name=group.name,
        namespace=job.namespace,
        node_name=known["node.unique.name"],
        node_id=place.node_id,
        env=env,
        resources=Resources(
            cpu_shares=task.cpu_mhz,
            memory_mb=task.memory_mb,
            memory_max_mb=task.memory_max_mb,
            percent_ticks=place.speed.share(task.cpu_mhz),
            memory_limit_bytes=max(task.memory_mb, task.memory_max_mb) * _MIB,
            ports=place.ports,
        ),
        mounts=_mounts(task, place.volumes, known),
        user=interpolation.expand(task.user, known),
        alloc_dir=str(alloc.path),
        stdout_path=str(alloc.fifo(task.name, "stdout")),
        stderr_path=str(alloc.fifo(task.name, "stderr")),
        network=NetworkIsolation(mode=_ISOLATED, path=place.netns) if place.netns else None,
        dns=_dns(group.network.dns, known),
    )
    return PlannedTask(
        label=_label(job, group, task, place.index),
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
