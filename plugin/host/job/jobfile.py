"""Reader of a job file, HCL or JSON, for the dev host.

All problems of a file are reported at once, before the first start.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from plugin.host.job import template_path
from plugin.host.job.block_reader import BlockReader, labelled, string_map
from plugin.host.job.hcl_job import parse_hcl
from plugin.host.job.json_job import parse_json
from plugin.host.job.keys import FILE, GROUP, JOB, RESOURCES, TASK, TEMPLATE
from plugin.host.job.network import GroupNetwork, read_network
from plugin.host.job.text import Block, check_tree, read_text
from plugin.host.job.volumes import Volume, VolumeMount, read_mounts, read_volumes
from proto.errors import Code, DriverError
from proto.values import dataclass

_DEFAULT_CPU_MHZ, _DEFAULT_MEMORY_MB = 100, 300
_MAX_COUNT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A file that is written before the task starts; `permissions` is a mode."""

    data: str
    destination: str
    permissions: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTask:
    """A task; `config` is the driver's block with the values of the file."""

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
    """A group; each of `count` allocations runs every task."""

    name: str
    count: int
    tasks: tuple[JobTask, ...]
    meta: Mapping[str, str] = field(default_factory=dict)
    network: GroupNetwork = field(default_factory=GroupNetwork)
    volumes: Mapping[str, Volume] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job; `ignored` names the keys that the dev host leaves to a Nomad agent."""

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
        """Number of tasks in all allocations."""
        return sum(group.count * len(group.tasks) for group in self.groups)


def load(path: Path, variables: Mapping[str, str]) -> Job:
    """Reads a job file.

    Args:
        path: the file; `-` is stdin.
        variables: values of HCL variables by name.

    Raises:
        DriverError: code INVALID, with all problems and their places.
    """
    name = "standard input" if str(path) == "-" else path.name
    return parse(name, read_text(path), variables)


def parse(name: str, text: str, variables: Mapping[str, str]) -> Job:
    """Reads a job from its text.

    Raises:
        DriverError: code INVALID, with all problems and their places.
    """
    if text.lstrip().startswith("{"):
        if variables:
            raise DriverError(f"{name}: a job in JSON has no variables", code=Code.INVALID)
        tree = parse_json(name, text)
    else:
        tree = parse_hcl(name, text, variables)
    check_tree(name, tree)
    reader = _Reader()
    job = reader.job(tree)
    if reader.problems:
        problems = "; ".join(reader.problems)
        raise DriverError(f"{name}: {problems}", code=Code.INVALID)
    return job


class _Reader(BlockReader):
    """Reads blocks into dataclasses."""

    def job(self, tree: Block) -> Job:
        self.sift(FILE, "file", tree)
        jobs = list(labelled(tree.get("job")))
        if len(jobs) != 1:
            self.problems.append(f"the file has {len(jobs)} job blocks instead of one")
            return Job(id="", groups=())
        label, body = jobs[0]
        where = f'job "{label}"'
        self.sift(JOB, where, body)
        self.labels("job", [label])
        self.labels("group", [key for key, _ in labelled(body.get("group"))])
        groups = [self._group(key, block) for key, block in labelled(body.get("group"))]
        # A task directly in the job becomes a group.
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
            meta=string_map(self.block(where, body, "meta")),
            ignored=tuple(sorted(self.ignored)),
        )

    def _group(self, label: str, block: Block) -> JobGroup:
        where = f'group "{label}"'
        self.sift(GROUP, where, block)
        volumes = read_volumes(self, where, block.get("volume"))
        self.labels("task", [key for key, _ in labelled(block.get("task"))])
        tasks = tuple(self._task(key, body, volumes) for key, body in labelled(block.get("task")))
        if not tasks:
            self.problems.append(f"{where}: has no task")
        return JobGroup(
            name=label,
            count=self.number(where, block, "count", 1, (0, _MAX_COUNT)),
            tasks=tasks,
            meta=string_map(self.block(where, block, "meta")),
            network=read_network(self, where, block.get("network")),
            volumes=volumes,
        )

    def _task(self, label: str, block: Block, volumes: Mapping[str, Volume]) -> JobTask:
        where = f'task "{label}"'
        self.sift(TASK, where, block)
        if "/" in label or label in {"", ".", "..", "alloc"}:
            self.problems.append(
                f"{where}: invalid task name: '/', '.', '..' and 'alloc' are not allowed"
            )
        resources = self.block(where, block, "resources", once=True)
        self.sift(RESOURCES, f"{where}: resources", resources)
        span = (0, 2**40)
        return JobTask(
            name=label,
            driver=str(block.get("driver", "")),
            config=self.block(where, block, "config", once=True),
            env=string_map(self.block(where, block, "env")),
            meta=string_map(self.block(where, block, "meta")),
            user=str(block.get("user", "")),
            cpu_mhz=self.number(where, resources, "cpu", _DEFAULT_CPU_MHZ, span),
            memory_mb=self.number(where, resources, "memory", _DEFAULT_MEMORY_MB, span),
            memory_max_mb=self.number(where, resources, "memory_max", 0, (-1, span[1])),
            kill_timeout_s=self.duration(where, block, "kill_timeout", 5.0),
            kill_signal=str(block.get("kill_signal", "")),
            templates=self._templates(f"{where}: template", block.get("template")),
            mounts=read_mounts(self, where, block.get("volume_mount"), volumes),
        )

    def _templates(self, where: str, blocks: Any) -> tuple[Template, ...]:
        templates: list[Template] = []
        paths: list[str] = []
        for block in blocks if isinstance(blocks, list) else []:
            if isinstance(block, dict):
                templates.append(self._template(where, block))
                paths.append(template_path.below_alloc(templates[-1].destination))
        for first, second in itertools.combinations(sorted(paths), 2):
            if second == first or second.startswith(f"{first}/"):
                reason = "set twice" if second == first else f"below the destination {first!r}"
                self.problems.append(f"{where}: destination {second!r} is {reason}")
        return tuple(templates)

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
        destination = template_path.with_homes(str(block.get("destination") or ""))
        wrong = template_path.problem(destination) if destination else ""
        # Other references have a value only in an allocation; AllocDir checks the path then.
        if wrong and "${" not in destination:
            self.problems.append(f"{where}: destination {destination[:64]!r} {wrong}")
        return Template(
            data=str(block.get("data", "")),
            destination=destination,
            permissions=permissions,
        )
