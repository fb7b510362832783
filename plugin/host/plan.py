"""What a job comes to on this machine: its allocations and, for each task, what the driver gets."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.nomad_types import Resources, TaskConfig
from plugin.host import interpolation
from plugin.host.allocdir import AllocDir
from plugin.host.jobfile import Job, JobGroup, JobTask
from proto.errors import Code, DriverError

_MIB = 1024 * 1024


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
    """One allocation: its directory and its tasks."""

    directory: AllocDir
    tasks: tuple[PlannedTask, ...]


def allocations(job: Job, root: Path) -> list[Alloc]:
    """Every allocation of a job, nothing made on disk yet."""
    found: list[Alloc] = []
    for group in job.groups:
        for index in range(group.count):
            alloc_id = str(uuid.uuid4())
            directory = AllocDir(root, alloc_id)
            tasks = tuple(
                _planned(job, group, task, directory, alloc_id, index) for task in group.tasks
            )
            found.append(Alloc(directory=directory, tasks=tasks))
    return found


def build(alloc: Alloc) -> None:
    """Makes the directories, FIFOs and templates of an allocation.

    Raises:
        DriverError: the file system does not take it, or a template cannot be rendered.
    """
    alloc.directory.build([planned.task.name for planned in alloc.tasks])
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


def _planned(
    job: Job, group: JobGroup, task: JobTask, alloc: AllocDir, alloc_id: str, index: int
) -> PlannedTask:
    env = interpolation.environment(job, group, task, alloc_id, index)
    known = {**interpolation.node(job), **env}
    config = TaskConfig(
        id=f"{alloc_id}/{task.name}/{uuid.uuid4().hex[:8]}",
        name=task.name,
        alloc_id=alloc_id,
        job_id=job.id,
        job_name=job.name or job.id,
        task_group_name=group.name,
        namespace=job.namespace,
        node_name=known["node.unique.name"],
        env=env,
        resources=Resources(
            cpu_shares=task.cpu_mhz,
            memory_mb=task.memory_mb,
            memory_max_mb=task.memory_max_mb,
            memory_limit_bytes=max(task.memory_mb, task.memory_max_mb) * _MIB,
        ),
        user=interpolation.expand(task.user, known),
        alloc_dir=str(alloc.path),
        stdout_path=str(alloc.fifo(task.name, "stdout")),
        stderr_path=str(alloc.fifo(task.name, "stderr")),
    )
    return PlannedTask(
        label=_label(job, group, task, index),
        task=task,
        config=config,
        options=interpolation.expand(task.config, known),
        alloc=alloc,
    )
