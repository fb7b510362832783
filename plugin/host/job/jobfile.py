"""Reading a job file, HCL or JSON, into what the embedded host runs.

Every problem of a file is reported at once, and before anything is started.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugin.host.job import hcl_job, json_job, template_path
from plugin.host.job import text as job_text
from plugin.host.job import volumes as job_volumes
from plugin.host.job.block_reader import BlockReader, labelled, texts
from plugin.host.job.keys import FILE, GROUP, JOB, RESOURCES, TASK, TEMPLATE
from plugin.host.job.network import GroupNetwork, read
from plugin.host.job.text import Block
from plugin.host.job.volumes import Volume, VolumeMount
from proto.errors import Code, DriverError

_DEFAULT_CPU_MHZ, _DEFAULT_MEMORY_MB = 100, 300
_MAX_COUNT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A file to write before the task starts."""

    data: str
    destination: str
    permissions: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTask:
    """One task. config is its driver's block with the values of the file."""

    name: str
    driver: str
    config: Block
    env: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    cpu_mhz: int = _DEFAULT_CPU_MHZ
    memory_mb: int = _DEFAULT_MEMORY_MB
    memory_max_mb: int = 0
    kill_timeout_s: float = 5.0
    kill_signal: str = ""
    templates: tuple[Template, ...] = ()
    mounts: tuple[VolumeMount, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobGroup:
    """A group; each of its `count` allocations runs every task."""

    name: str
    count: int
    tasks: tuple[JobTask, ...]
    meta: Mapping[str, str] = field(default_factory=dict)
    network: GroupNetwork = field(default_factory=GroupNetwork)
    volumes: Mapping[str, Volume] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job. ignored names what the embedded host leaves to Nomad."""

    id: str
    groups: tuple[JobGroup, ...]
    name: str = ""
    region: str = "global"
    datacenter: str = "dc1"
    namespace: str = "default"
    meta: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @property
    def task_count(self) -> int:
        """How many tasks run, over all allocations."""
        return sum(group.count * len(group.tasks) for group in self.groups)


def load(path: Path, variables: Mapping[str, str]) -> Job:
    """Reads a job file; `-` is stdin. `variables` are the values of its HCL variables.

    Raises:
        DriverError: code INVALID; everything that is wrong, and where.
    """
    name = "standard input" if str(path) == "-" else path.name
    return parse(name, job_text.read(path), variables)


def parse(name: str, text: str, variables: Mapping[str, str]) -> Job:
    """Reads a job from its text.

    Raises:
        DriverError: code INVALID; everything that is wrong, and where.
    """
    if text.lstrip().startswith("{"):
        if variables:
            raise DriverError(f"{name}: a job in JSON has no variables", code=Code.INVALID)
        tree = json_job.parse(name, text)
    else:
        tree = hcl_job.parse(name, text, variables)
    job_text.check(name, tree)
    reader = _Reader()
    job = reader.job(tree)
    if reader.problems:
        problems = "; ".join(reader.problems)
        raise DriverError(f"{name}: {problems}", code=Code.INVALID)
    return job


class _Reader(BlockReader):
    """Turns blocks into dataclasses."""

    def job(self, tree: Block) -> Job:
        self.sift(FILE, "file", tree)
        jobs = list(labelled(tree.get("job")))
        if len(jobs) != 1:
            self.problems.append(f"{len(jobs)} job blocks, one is wanted")
            return Job(id="", groups=())
        label, body = jobs[0]
        where = f'job "{label}"'
        self.sift(JOB, where, body)
        self.labels("job", [label])
        self.labels("group", [key for key, _ in labelled(body.get("group"))])
        groups = [self._group(key, block) for key, block in labelled(body.get("group"))]
        # A task directly in the job is a group of its own.
        groups += [
            self._group(key, {"task": [{key: block}]}) for key, block in labelled(body.get("task"))
        ]
        if not groups:
            self.problems.append(f"{where}: has no group")
        datacenters = body.get("datacenters")
        return Job(
            id=str(body.get("id", label)),
            name=str(body.get("name", label)),
            groups=tuple(groups),
            region=str(body.get("region", "global")),
            datacenter=next(map(str, datacenters if isinstance(datacenters, list) else ()), "dc1"),
            namespace=str(body.get("namespace", "default")),
            meta=texts(self.block(where, body, "meta")),
            ignored=tuple(sorted(self.ignored)),
        )

    def _group(self, label: str, block: Block) -> JobGroup:
        where = f'group "{label}"'
        self.sift(GROUP, where, block)
        volumes = job_volumes.read(self, where, block.get("volume"))
        self.labels("task", [key for key, _ in labelled(block.get("task"))])
        tasks = tuple(self._task(key, body, volumes) for key, body in labelled(block.get("task")))
        if not tasks:
            self.problems.append(f"{where}: has no task")
        return JobGroup(
            name=label,
            count=self.number(where, block, "count", 1, (0, _MAX_COUNT)),
            tasks=tasks,
            meta=texts(self.block(where, block, "meta")),
            network=read(self, where, block.get("network")),
            volumes=volumes,
        )

    def _task(self, label: str, block: Block, volumes: Mapping[str, Volume]) -> JobTask:
        where = f'task "{label}"'
        self.sift(TASK, where, block)
        if "/" in label or label in {"", ".", "..", "alloc"}:
            self.problems.append(f"{where}: cannot be a directory, so not a task's name either")
        resources = self.block(where, block, "resources", once=True)
        self.sift(RESOURCES, f"{where}: resources", resources)
        span = (0, 2**40)
        return JobTask(
            name=label,
            driver=str(block.get("driver", "")),
            config=self.block(where, block, "config", once=True),
            env=texts(self.block(where, block, "env")),
            meta=texts(self.block(where, block, "meta")),
            user=str(block.get("user", "")),
            cpu_mhz=self.number(where, resources, "cpu", _DEFAULT_CPU_MHZ, span),
            memory_mb=self.number(where, resources, "memory", _DEFAULT_MEMORY_MB, span),
            memory_max_mb=self.number(where, resources, "memory_max", 0, (-1, span[1])),
            kill_timeout_s=self.duration(where, block, "kill_timeout", 5.0),
            kill_signal=str(block.get("kill_signal", "")),
            templates=self._templates(f"{where}: template", block.get("template")),
            mounts=job_volumes.read_mounts(self, where, block.get("volume_mount"), volumes),
        )

    def _templates(self, where: str, blocks: Any) -> tuple[Template, ...]:
        found: list[Template] = []
        places: list[str] = []
        for block in blocks if isinstance(blocks, list) else []:
            if isinstance(block, dict):
                found.append(self._template(where, block))
                places.append(template_path.normal(found[-1].destination))
        for first, second in itertools.combinations(sorted(places), 2):
            if second == first or second.startswith(f"{first}/"):
                what = "given twice" if second == first else f"below another one, {first!r}"
                self.problems.append(f"{where}: destination {second!r} is {what}")
        return tuple(found)

    def _template(self, where: str, block: Block) -> Template:
        self.sift(TEMPLATE, where, block)
        for key in ("data", "destination"):
            if not block.get(key) and "source" not in block:
                self.problems.append(f"{where}: {key} is missing")
        try:
            permissions = int(str(block.get("perms", "644")), 8)
        except ValueError:
            permissions = -1
        if not 0 <= permissions <= 0o777:  # noqa: PLR2004
            self.problems.append(f'{where}: perms {block["perms"]!r} are not like "644"')
        destination = template_path.known(str(block.get("destination") or ""))
        wrong = template_path.problem(destination) if destination else ""
        # Other references are known when the allocation is; they are looked at then.
        if wrong and "${" not in destination:
            self.problems.append(f"{where}: destination {destination[:64]!r} {wrong}")
        return Template(
            data=str(block.get("data", "")),
            destination=destination,
            permissions=permissions,
        )
