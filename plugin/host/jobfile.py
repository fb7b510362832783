"""Reading a job file: Nomad's HCL, or its JSON as `nomad job inspect` prints it.

Only what the embedded host acts on is read. What it cannot do is refused by name where leaving it
out would change what the task does, and listed as ignored where Nomad alone is concerned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugin.option_types import parse_duration_s
from proto.errors import Code, DriverError

Block = dict[str, Any]

_MARKS = frozenset({"__is_block__", "__comments__", "__inline_comments__"})
_REFUSED = ("artifact", "vault", "dispatch_payload", "volume_mount", "csi_plugin", "lifecycle")
_IGNORED = (
    *("restart", "reschedule", "update", "migrate", "service", "constraint", "affinity", "spread"),
    *("periodic", "parameterized", "logs", "meta", "ephemeral_disk", "scaling", "ui", "identity"),
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([nrt"\\]))')
_JSON_REFUSED = {
    "Artifacts": "artifact",
    "Vault": "vault",
    "VolumeMounts": "volume_mount",
    "Lifecycle": "lifecycle",
}
_DEFAULT_CPU_MHZ, _DEFAULT_MEMORY_MB = 100, 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A file to write before the task starts; destination is relative to the task directory."""

    data: str
    destination: str
    permissions: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTask:
    """One task. config is its driver's block, values as in the file; cpu_mhz and memory_*_mb."""

    name: str
    driver: str
    config: Block
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    cpu_mhz: int = _DEFAULT_CPU_MHZ
    memory_mb: int = _DEFAULT_MEMORY_MB
    memory_max_mb: int = 0
    kill_timeout_s: float = 5.0
    kill_signal: str = ""
    templates: tuple[Template, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobGroup:
    """A group; each of its `count` allocations runs every task."""

    name: str
    count: int
    tasks: tuple[JobTask, ...]
    network_mode: str = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job. ignored names what the embedded host leaves to Nomad."""

    id: str
    groups: tuple[JobGroup, ...]
    region: str = "global"
    datacenter: str = "dc1"
    namespace: str = "default"
    ignored: tuple[str, ...] = ()


def load(path: Path, variables: Mapping[str, str]) -> Job:
    """Reads a job file; `variables` are the values of its HCL variables.

    Raises:
        DriverError: code INVALID; what is wrong, and where.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise invalid(path.name, f"cannot be read: {error}") from error
    if text.lstrip().startswith("{"):
        return _from_json(path.name, text)
    return _from_hcl(path.name, text, variables)


def invalid(where: str, why: str) -> DriverError:
    """A mistake in the job file."""
    return DriverError(f"{where}: {why}", resolution="correct the job file", code=Code.INVALID)


# --- HCL


def _from_hcl(name: str, text: str, variables: Mapping[str, str]) -> Job:
    try:
        import hcl2  # noqa: PLC0415 - only for HCL jobs; it is no dependency of the driver
    except ImportError:
        raise DriverError(
            "reading HCL needs the Python package python-hcl2",
            resolution="pip install python-hcl2, or give the job as JSON",
            code=Code.UNSUPPORTED,
        ) from None
    try:
        document = hcl2.loads(text if text.endswith("\n") else f"{text}\n")
    except Exception as error:
        raise invalid(name, f"is not HCL: {_first_lines(error)}") from error
    values = _variables(document, variables, name)
    tree = _clean(document, values)
    jobs = list(_labelled(tree.get("job")))
    if len(jobs) != 1:
        raise invalid(name, f"has {len(jobs)} job blocks, one is wanted")
    label, body = jobs[0]
    groups = [_group(name, key, block) for key, block in _labelled(body.get("group"))]
    groups += [  # a task directly in the job is a group of its own
        _group(name, key, {"task": [{key: block}]}) for key, block in _labelled(body.get("task"))
    ]
    if not groups:
        raise invalid(name, f'job "{label}" has no group')
    return Job(
        id=str(body.get("id", label)),
        groups=tuple(groups),
        region=str(body.get("region", "global")),
        datacenter=str((body.get("datacenters") or ["dc1"])[0]),
        namespace=str(body.get("namespace", "default")),
        ignored=tuple(sorted(_ignored(body))),
    )


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _variables(document: Block, given: Mapping[str, str], name: str) -> dict[str, Any]:
    declared: dict[str, Any] = {}
    for key, block in _labelled(_clean(document.get("variable") or [], {})):
        declared[key] = given.get(key, block.get("default"))
        if declared[key] is None:
            raise invalid(name, f'variable "{key}" has no value: give --var {key}=…')
    unknown = set(given) - set(declared)
    if unknown:
        raise invalid(name, f"no such variable: {', '.join(sorted(unknown))}")
    return declared


def _clean(value: Any, variables: Mapping[str, Any]) -> Any:
    """The tree without the parser's marks: keys and strings unquoted, variables in place."""
    if isinstance(value, dict):
        return {
            unquote(key): _clean(item, variables)
            for key, item in value.items()
            if key not in _MARKS
        }
    if isinstance(value, list):
        return [_clean(item, variables) for item in value]
    if isinstance(value, str):
        return _substitute(unquote(value), variables)
    return value


def unquote(text: str) -> str:
    """A string as the parser keeps it: in quotes, with escapes, or as a heredoc."""
    if len(text) < 2 or not (text[0] == text[-1] == '"'):  # noqa: PLR2004
        return text
    inner = text[1:-1]
    heredoc = re.fullmatch(r"<<(-?)(\w+)\n(.*?)\s*\2", inner, re.DOTALL)
    if heredoc:
        lines = heredoc[3].split("\n")
        if heredoc[1]:
            margin = min((len(s) - len(s.lstrip()) for s in lines if s.strip()), default=0)
            lines = [line[margin:] for line in lines]
        return "\n".join(lines) + "\n"
    return _ESCAPE.sub(_unescape, inner)


def _unescape(match: re.Match[str]) -> str:
    code = match[1] or match[2]
    return chr(int(code, 16)) if code else _ESCAPES[match[3]]


def _substitute(text: str, variables: Mapping[str, Any]) -> Any:
    whole = re.fullmatch(r"\$\{\s*var\.([\w-]+)\s*\}", text)
    if whole and whole[1] in variables:
        return variables[whole[1]]
    return re.sub(
        r"(?<!\$)\$\{\s*var\.([\w-]+)\s*\}",
        lambda match: str(variables.get(match[1], match[0])),
        text,
    )


def _labelled(blocks: Any) -> Iterable[tuple[str, Block]]:
    """(label, body) of blocks such as `task "web" {}`."""
    for block in blocks if isinstance(blocks, list) else []:
        for label, body in block.items():
            if isinstance(body, dict):
                yield str(label), body


def one(block: Mapping[str, Any], key: str) -> Block:
    """The body of a block that stands at most once; a list of one, or a map."""
    value = block.get(key)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        merged: Block = {}
        for item in value:
            merged.update(item)
        return merged
    return value if isinstance(value, dict) else {}


def _ignored(block: Mapping[str, Any]) -> set[str]:
    return {key for key in block if key in _IGNORED}


def _group(name: str, label: str, block: Block) -> JobGroup:
    tasks = tuple(_task(name, key, body) for key, body in _labelled(block.get("task")))
    if not tasks:
        raise invalid(name, f'group "{label}" has no task')
    count = block.get("count", 1)
    if not isinstance(count, int) or not 0 <= count <= 1000:  # noqa: PLR2004
        raise invalid(name, f'group "{label}": count {count!r} is not a number from 0 to 1000')
    mode = str(one(block, "network").get("mode", "host"))
    if mode not in {"host", "none"}:
        raise invalid(
            name, f'group "{label}": network mode "{mode}" needs a Nomad agent; use host or none'
        )
    return JobGroup(name=label, count=count, tasks=tasks, network_mode=mode)


def _task(name: str, label: str, block: Block) -> JobTask:
    where = f'task "{label}"'
    for key in _REFUSED:
        if key in block:
            raise invalid(name, f"{where}: {key} needs a Nomad agent")
    resources = one(block, "resources")
    try:
        return JobTask(
            name=label,
            driver=str(block.get("driver", "")),
            config=one(block, "config"),
            env={key: _text(value) for key, value in one(block, "env").items()},
            user=str(block.get("user", "")),
            cpu_mhz=int(resources.get("cpu", _DEFAULT_CPU_MHZ)),
            memory_mb=int(resources.get("memory", _DEFAULT_MEMORY_MB)),
            memory_max_mb=int(resources.get("memory_max", 0)),
            kill_timeout_s=parse_duration_s(str(block.get("kill_timeout", "5s"))),
            kill_signal=str(block.get("kill_signal", "")),
            templates=tuple(_template(item) for item in block.get("template") or []),
        )
    except (ValueError, TypeError) as error:
        raise invalid(name, f"{where}: {error}") from error


def _template(block: Block) -> Template:
    if "data" not in block:
        raise ValueError("template needs data; source and Consul need a Nomad agent")
    return Template(
        data=str(block["data"]),
        destination=str(block.get("destination", "")),
        permissions=int(str(block.get("perms", "644")), 8),
    )


def _text(value: Any) -> str:
    """How HCL turns a value into a string."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


# --- JSON


def _from_json(name: str, text: str) -> Job:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise invalid(name, f"is not JSON: {error}") from error
    body = document.get("Job", document) if isinstance(document, dict) else {}
    if not isinstance(body, dict) or not isinstance(body.get("TaskGroups"), list):
        raise invalid(name, "has no TaskGroups: it is not a job in Nomad's JSON form")
    return Job(
        id=str(body.get("ID") or body.get("Name") or "job"),
        groups=tuple(_json_group(name, group) for group in body["TaskGroups"]),
        region=str(body.get("Region") or "global"),
        datacenter=str((body.get("Datacenters") or ["dc1"])[0]),
        namespace=str(body.get("Namespace") or "default"),
    )


def _json_group(name: str, group: Block) -> JobGroup:
    block: Block = {"count": group.get("Count", 1) or 1, "task": []}
    networks = group.get("Networks") or []
    if networks:
        block["network"] = {"mode": networks[0].get("Mode") or "host"}
    for task in group.get("Tasks") or []:
        resources = task.get("Resources") or {}
        body: Block = {
            "driver": task.get("Driver", ""),
            "config": task.get("Config") or {},
            "env": task.get("Env") or {},
            "user": task.get("User") or "",
            "resources": {
                "cpu": resources.get("CPU", _DEFAULT_CPU_MHZ),
                "memory": resources.get("MemoryMB", _DEFAULT_MEMORY_MB),
                "memory_max": resources.get("MemoryMaxMB") or 0,
            },
            "kill_timeout": f"{task['KillTimeout']}ns" if task.get("KillTimeout") else "5s",
            "kill_signal": task.get("KillSignal") or "",
            "template": [
                {"data": item.get("EmbeddedTmpl", ""), "destination": item.get("DestPath", "")}
                for item in task.get("Templates") or []
            ],
        }
        for key in ("Artifacts", "Vault", "VolumeMounts", "Lifecycle"):
            if task.get(key):
                body[
                    {"Artifacts": "artifact", "VolumeMounts": "volume_mount"}.get(key, key.lower())
                ] = 1
        block["task"].append({str(task.get("Name", "task")): body})
    return _group(name, str(group.get("Name", "group")), block)
