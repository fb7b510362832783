"""`${NOMAD_…}` and its kin in a job's strings, and the variables of a task's environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from plugin.host.jobfile import Job, JobGroup, JobTask

_REFERENCE = re.compile(
    r"""\$\$\{ | \$\{ \s* (?: (?:env\[\s*"([^"]+)"\s*\]) | ([A-Za-z_][\w.\-]*) ) \s* \}""",
    re.VERBOSE,
)
_TEMPLATE_ENV = re.compile(r'\{\{-?\s*env\s+"([^"]+)"\s*-?\}\}')


def environment(
    job: Job, group: JobGroup, task: JobTask, alloc_id: str, index: int
) -> dict[str, str]:
    """What Nomad puts into a task's environment, before the job's own `env`."""
    known = {
        "NOMAD_ALLOC_DIR": "/alloc",
        "NOMAD_TASK_DIR": "/local",
        "NOMAD_SECRETS_DIR": "/secrets",
        "NOMAD_ALLOC_ID": alloc_id,
        "NOMAD_SHORT_ALLOC_ID": alloc_id[:8],
        "NOMAD_ALLOC_INDEX": str(index),
        "NOMAD_ALLOC_NAME": f"{job.id}.{group.name}[{index}]",
        "NOMAD_TASK_NAME": task.name,
        "NOMAD_GROUP_NAME": group.name,
        "NOMAD_JOB_ID": job.id,
        "NOMAD_JOB_NAME": job.id,
        "NOMAD_DC": job.datacenter,
        "NOMAD_REGION": job.region,
        "NOMAD_NAMESPACE": job.namespace,
        "NOMAD_CPU_LIMIT": str(task.cpu_mhz),
        "NOMAD_MEMORY_LIMIT": str(task.memory_mb),
    }
    if task.memory_max_mb:
        known["NOMAD_MEMORY_MAX_LIMIT"] = str(task.memory_max_mb)
    own = {key: expand(value, known) for key, value in task.env.items()}
    return {**known, **own}


def expand(value: Any, known: Mapping[str, str]) -> Any:
    """A value with the references in its strings replaced; `$${` stands for `${`.

    What is not known stays as it is, as with Nomad.
    """
    if isinstance(value, dict):
        return {key: expand(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, known) for item in value]
    if not isinstance(value, str):
        return value

    def replaced(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        return known.get(match[1] or match[2], match[0])

    return _REFERENCE.sub(replaced, value)


def render(template: str, known: Mapping[str, str]) -> str:
    """A template with `{{ env "NAME" }}` filled in.

    Raises:
        ValueError: it uses a function that only a Nomad agent has.
    """
    text = _TEMPLATE_ENV.sub(lambda match: known.get(match[1], ""), template)
    other = re.search(r"\{\{.*?\}\}", text, re.DOTALL)
    if other:
        raise ValueError(f"template: {other[0][:60]} needs a Nomad agent")
    return text
