"""References such as `${NOMAD_…}` in a job's strings, and the environment of a task."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from typing import Any

from actors.model.nomad import PortMapping
from plugin.host.job import template_path
from plugin.host.job.jobfile import Job, JobGroup, JobTask
from plugin.host.network.cni import Attached
from plugin.host.network.ports import container_port
from proto.values import dataclass

_REFERENCE = re.compile(
    r"""\$\{ \s* (?: env\[\s*"([^"]+)"\s*\] | ([A-Za-z_][\w.\-]*) ) \s* \}""", re.VERBOSE
)
_TEMPLATE_ENV = re.compile(r'\{\{-?\s*env\s+"([^"]+)"\s*-?\}\}')
_NO_NAME = re.compile(r"[^A-Za-z0-9_]")


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocIdentity:
    """Identity of an allocation; `index` counts the allocations of a group from 0."""

    id: str
    index: int
    ports: tuple[PortMapping, ...] = ()


def node(job: Job) -> dict[str, str]:
    """Returns the values of the usual references `${node.…}` and `${attr.…}` on this machine."""
    system = platform.uname()
    return {
        "node.datacenter": job.datacenter,
        "node.region": job.region,
        "node.unique.name": system.node,
        "node.class": "",
        "node.pool": "default",
        "attr.kernel.name": system.system.lower(),
        "attr.kernel.version": system.release,
        "attr.kernel.arch": system.machine,
        "attr.cpu.arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(
            system.machine, system.machine
        ),
        "attr.cpu.numcores": str(os.cpu_count() or 1),
        "attr.unique.hostname": system.node,
    }


def environment(job: Job, group: JobGroup, task: JobTask, alloc: AllocIdentity) -> dict[str, str]:
    """Returns the environment of a task, as Nomad builds it (client/taskenv/env.go).

    The job's `env` wins over Nomad's variables. The addresses in a bridge network are missing, see
    `addresses`.

    Args:
        job: the job.
        group: the group of the task.
        task: the task.
        alloc: the allocation of the task.
    """
    known = {
        "NOMAD_ALLOC_DIR": "/alloc",
        "NOMAD_TASK_DIR": "/local",
        "NOMAD_SECRETS_DIR": "/secrets",
        "NOMAD_ALLOC_ID": alloc.id,
        "NOMAD_SHORT_ALLOC_ID": alloc.id[:8],
        "NOMAD_ALLOC_INDEX": str(alloc.index),
        "NOMAD_ALLOC_NAME": f"{job.id}.{group.name}[{alloc.index}]",
        "NOMAD_TASK_NAME": task.name,
        "NOMAD_GROUP_NAME": group.name,
        "NOMAD_JOB_ID": job.id,
        "NOMAD_JOB_NAME": job.name or job.id,
        "NOMAD_DC": job.datacenter,
        "NOMAD_REGION": job.region,
        "NOMAD_NAMESPACE": job.namespace,
        "NOMAD_CPU_LIMIT": str(task.cpu_mhz),
        "NOMAD_MEMORY_LIMIT": str(task.memory_mb),
    }
    if task.memory_max_mb > 0:
        known["NOMAD_MEMORY_MAX_LIMIT"] = str(task.memory_max_mb)
    facts = {**node(job), **known}
    known |= _meta({**job.meta, **group.meta, **task.meta}, facts)
    known |= _ports(alloc.ports)
    facts |= known
    return {**known, **{key: expand(value, facts) for key, value in task.env.items()}}


def _meta(meta: Mapping[str, str], facts: Mapping[str, str]) -> dict[str, str]:
    """Returns each key of the meta blocks twice, unchanged and in capitals, as in Nomad."""
    variables: dict[str, str] = {}
    for key, value in meta.items():
        name = _NO_NAME.sub("_", key)
        text = expand(value, facts)
        variables |= {f"NOMAD_META_{name}": text, f"NOMAD_META_{name.upper()}": text}
    return variables


def _ports(ports: Sequence[PortMapping]) -> dict[str, str]:
    variables: dict[str, str] = {}
    for port in ports:
        name = _NO_NAME.sub("_", port.label)
        variables |= {
            f"NOMAD_IP_{name}": port.host_ip,
            f"NOMAD_PORT_{name}": str(container_port(port)),
            f"NOMAD_ADDR_{name}": f"{port.host_ip}:{port.value}",
            f"NOMAD_HOST_IP_{name}": port.host_ip,
            f"NOMAD_HOST_PORT_{name}": str(port.value),
            f"NOMAD_HOST_ADDR_{name}": f"{port.host_ip}:{port.value}",
            f"NOMAD_ALLOC_PORT_{name}": str(container_port(port)),
        }
    return variables


def addresses(ports: Sequence[PortMapping], end: Attached) -> dict[str, str]:
    """Returns variables of each port for the allocation's address in the bridge network."""
    variables: dict[str, str] = {}
    for port in ports:
        name = _NO_NAME.sub("_", port.label)
        variables |= {
            f"NOMAD_ALLOC_INTERFACE_{name}": end.interface,
            f"NOMAD_ALLOC_IP_{name}": end.address,
            f"NOMAD_ALLOC_ADDR_{name}": f"{end.address}:{container_port(port)}",
        }
    return variables


def expand(value: Any, known: Mapping[str, str]) -> Any:
    """Replaces the references in all strings of a value; unknown references stay, as in Nomad."""
    if isinstance(value, dict):
        return {key: expand(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, known) for item in value]
    if not isinstance(value, str):
        return value
    return _REFERENCE.sub(lambda match: known.get(match[1] or match[2], match[0]), value)


def destination(text: str, known: Mapping[str, str]) -> str:
    """Returns a template's destination, relative to the task's directory on the host."""
    path: str = expand(text, {**known, **template_path.HOMES})
    return path.lstrip("/")


def render(template: str, known: Mapping[str, str]) -> str:
    """Replaces `{{ env "NAME" }}` in a template.

    Raises:
        ValueError: the template calls a function that only a Nomad agent has.
    """
    other = re.search(r"\{\{.*?\}\}", _TEMPLATE_ENV.sub("", template), re.DOTALL)
    if other:
        raise ValueError(f"template: {other[0][:60]} needs a Nomad agent")
    return _TEMPLATE_ENV.sub(lambda match: known.get(match[1], ""), template)
