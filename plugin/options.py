"""Every option, declared once: its HCL, its default, its check and its words.

The schemas that Nomad gets, the validated settings and the README's tables come from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack

from actors.settings import Auth, DriverSettings, TaskOptions
from plugin import option_types as types
from proto.errors import Code, DriverError

_MAX_PROBLEMS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option.

    hcl_type is an HCL type expression; nested makes it a block instead. default is an HCL
    literal, or empty for none. field is the dataclass field that takes the value.
    """

    name: str
    hcl_type: str
    doc: str
    read: types.Reader
    field: str = ""
    default: str = ""
    required: bool = False
    nested: tuple[Option, ...] = ()

    @property
    def target(self) -> str:
        """The dataclass field that takes the value."""
        return self.field or self.name


def _auth(value: Any, path: str, problems: list[str]) -> Auth | None:
    """An auth block; one whose user or password is empty, as a template may leave it, is none."""
    # Nomad gives a block as a map, or as a list of maps where a job repeats it.
    if isinstance(value, list) and len(value) < 2:  # noqa: PLR2004
        value = value[0] if value else {}
        if not value:
            return None
    if not isinstance(value, Mapping):
        problems.append(f"{path}: is not one block")
        return None
    before = len(problems)
    fields = _read_fields(_AUTH_FIELDS, value, f"{path}.", problems)
    if len(problems) > before or not fields["username"] or not fields["password"]:
        return None
    return Auth(**fields)


_AUTH_FIELDS = (
    Option(
        name="username",
        hcl_type="string",
        required=True,
        read=types.text(),
        doc="User name at the registry.",
    ),
    Option(
        name="password",
        hcl_type="string",
        required=True,
        read=types.text(64 * 1024, secret=True),
        doc="Password or access token at the registry.",
    ),
    Option(
        name="server_address",
        hcl_type="string",
        read=types.text(),
        doc="Registry that the credentials are for, such as `registry.example.com`.",
    ),
)

DRIVER_OPTIONS: tuple[Option, ...] = (
    Option(
        name="enabled",
        hcl_type="bool",
        default="true",
        read=types.boolean,
        doc="`false` hides the driver on this node.",
    ),
    Option(
        name="containerd_runtime",
        hcl_type="string",
        default='"io.containerd.runc.v2"',
        read=types.required_text,
        doc="Runtime that containers get.",
    ),
    Option(
        name="stats_interval",
        field="stats_interval_s",
        hcl_type="string",
        default='"1s"',
        read=types.duration_s(at_least=0.1),
        doc="How often a task is sampled while somebody watches its stats.",
    ),
    Option(
        name="allow_privileged",
        hcl_type="bool",
        default="true",
        read=types.boolean,
        doc="`false` refuses privileged jobs.",
    ),
    Option(
        name="auth",
        hcl_type="block",
        nested=_AUTH_FIELDS,
        read=_auth,
        doc="Credentials for jobs that bring none. Sent only to `server_address`; without one,"
        " to `docker.io`.",
    ),
    Option(
        name="containerd_address",
        hcl_type="string",
        default='"/run/containerd/containerd.sock"',
        read=types.absolute_path,
        doc="containerd's socket.",
    ),
    Option(
        name="containerd_namespace",
        hcl_type="string",
        default='""',
        read=types.containerd_name,
        doc="containerd's namespace; empty: `nomad`, or `nomad.slice` on cgroup v2.",
    ),
    Option(
        name="state_dir",
        hcl_type="string",
        default='"/run/nomad-driver-containerd"',
        read=types.absolute_path,
        doc="Where the launcher and the workers keep sockets and exit records; must not survive"
        " a reboot.",
    ),
)

TASK_OPTIONS: tuple[Option, ...] = (
    Option(
        name="image",
        hcl_type="string",
        required=True,
        read=types.required_text,
        doc="Image to run, written as for Docker.",
    ),
    Option(
        name="image_pull_timeout",
        field="image_pull_timeout_s",
        hcl_type="string",
        default='"5m"',
        read=types.duration_s(prefix="Failed to parse image_pull_timeout: ", at_least=0.001),
        doc="How long a pull may take.",
    ),
    Option(
        name="command",
        hcl_type="string",
        read=types.text(types.MAX_ARGUMENT_BYTES),
        doc="Replaces the image's CMD, keeps its ENTRYPOINT.",
    ),
    Option(
        name="args",
        hcl_type="list(string)",
        read=types.texts,
        doc="Arguments after `command` or `entrypoint`; alone they replace CMD.",
    ),
    Option(
        name="entrypoint",
        hcl_type="list(string)",
        read=types.texts,
        doc='Replaces ENTRYPOINT and CMD; `[""]` clears the image\'s ENTRYPOINT.',
    ),
    Option(
        name="cwd",
        hcl_type="string",
        read=types.container_path,
        doc="Working directory; made when it does not exist.",
    ),
    Option(
        name="hostname",
        hcl_type="string",
        read=types.hostname,
        doc="Host name in the container; default: task name and the alloc's first 8 digits.",
    ),
    Option(
        name="host_network",
        hcl_type="bool",
        default="false",
        read=types.boolean,
        doc="`true` uses the host's network.",
    ),
    Option(
        name="host_dns",
        hcl_type="bool",
        default="true",
        read=types.boolean,
        doc="`false` keeps the image's `/etc/resolv.conf` instead of the host's.",
    ),
    Option(
        name="readonly_rootfs",
        hcl_type="bool",
        default="false",
        read=types.boolean,
        doc="`true` makes the container's root read-only.",
    ),
    Option(
        name="auth",
        hcl_type="block",
        nested=_AUTH_FIELDS,
        read=_auth,
        doc="Credentials for the image's registry; they win over the driver's.",
    ),
)


def driver_settings(packed: bytes, *, total_mhz: int = 0, cores: int = 0) -> DriverSettings:
    """The driver's settings from the plugin block.

    Raises:
        DriverError: code INVALID, with every problem in the block.
    """
    fields = _decode(DRIVER_OPTIONS, packed, "the plugin block of containerd-driver")
    return DriverSettings(**fields, total_mhz=total_mhz, cores=cores)


def task_options(packed: bytes) -> TaskOptions:
    """One task's options from the job's `config` block.

    Raises:
        DriverError: code INVALID, `failed to decode driver config`, with every problem.
    """
    fields = _decode(TASK_OPTIONS, packed, "the task's config")
    return TaskOptions(**fields)


def markdown_table(options: tuple[Option, ...]) -> str:
    """The README's table of a set of options."""
    rows = ["| Option | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
    for option in options:
        default = "**required**" if option.required else f"`{option.default}`"
        shown = default if option.required or option.default not in {"", '""'} else "–"
        rows.append(f"| `{option.name}` | {option.hcl_type} | {shown} | {option.doc} |")
        rows += [
            f"| `{option.name}.{inner.name}` | {inner.hcl_type} |"
            f" {'**required**' if inner.required else '–'} | {inner.doc} |"
            for inner in option.nested
        ]
    return "\n".join(rows)


def _decode(options: tuple[Option, ...], packed: bytes, where: str) -> dict[str, Any]:
    try:
        values = msgpack.unpackb(packed, raw=False, strict_map_key=False) if packed else {}
    # TypeError: a map whose key is a list or a map.
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise DriverError(
            f"failed to decode driver config: {where} is not msgpack",
            details=type(error).__name__,
            code=Code.INVALID,
        ) from error
    problems: list[str] = []
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        problems.append(f"{where} is not a block")
        values = {}
    fields = _read_fields(options, values, "", problems)
    if problems:
        shown = problems[:_MAX_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        raise DriverError(
            f"failed to decode driver config: {'; '.join(shown)}",
            resolution=f"correct {where}",
            code=Code.INVALID,
        )
    return fields


def _read_fields(
    options: tuple[Option, ...], values: Mapping[Any, Any], prefix: str, problems: list[str]
) -> dict[str, Any]:
    names = [option.name for option in options]
    unknown = [key for key in values if key not in names]
    # A hint costs a comparison with every name; what nobody reads gets none.
    problems += [_unknown(prefix, str(key)[:64], names) for key in unknown[: _MAX_PROBLEMS + 1]]
    fields: dict[str, Any] = {}
    for option in options:
        value = values.get(option.name)
        if value is None:
            if option.required:
                problems.append(f"{prefix}{option.name}: is required")
            continue
        fields[option.target] = option.read(value, f"{prefix}{option.name}", problems)
    return fields


def _unknown(prefix: str, key: str, names: list[str]) -> str:
    import difflib  # noqa: PLC0415 - no part of any start

    near = difflib.get_close_matches(key, names, 1)
    hint = f', did you mean "{near[0]}"?' if near else ""
    return f"{prefix}{key}: no such option{hint}"
