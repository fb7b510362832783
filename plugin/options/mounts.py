"""The three ways to write a mount: `mounts` with fstab options, Docker's `mount`, `volumes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.model.settings import MountOption
from plugin.options import forms
from plugin.options import readers as types
from plugin.options.table import Option, block, read_fields

_TYPE = Option(
    name="type",
    hcl_type="string",
    default='"volume"',
    read=types.choice("volume", "bind", "tmpfs"),
    doc="`bind`, `tmpfs` or `volume`.",
)
_TARGET = Option(
    name="target",
    hcl_type="string",
    required=True,
    read=types.required_text,
    doc="Path in the container.",
)
_SOURCE = Option(
    name="source",
    hcl_type="string",
    read=types.text(),
    doc="Path on the host; a relative path starts at the task directory, as `local/…`.",
)
MOUNTS = (
    _TYPE,
    _TARGET,
    _SOURCE,
    Option(
        name="options",
        hcl_type="list(string)",
        read=types.texts,
        doc="Mount options; a bind needs at least `rbind` and `ro` or `rw`.",
    ),
)
_BIND = (
    Option(
        name="propagation",
        hcl_type="string",
        read=types.choice("private", "rprivate", "slave", "rslave", "shared", "rshared"),
        doc="`private`, `rprivate`, `slave`, `rslave`, `shared` or `rshared`, as in mount(8).",
    ),
)
_TMPFS = (
    Option(
        name="size",
        field="tmpfs_size_bytes",
        hcl_type="string",
        read=forms.size_bytes(""),
        doc="Size, in bytes or as `64M`.",
    ),
    Option(
        name="mode",
        field="tmpfs_mode",
        hcl_type="number",
        read=types.integer(0, 0o7777),
        doc="Permissions of the root directory, as a decimal number (511 is 0777).",
    ),
)


def _nested(options: tuple[Option, ...]) -> types.Reader:
    def read(value: Any, path: str, problems: list[str]) -> types.Fields:
        values = block(value, path, problems)
        return types.Fields(read_fields(options, values, f"{path}.", problems) if values else {})

    return read


MOUNT = (
    _TYPE,
    _TARGET,
    _SOURCE,
    Option(
        name="readonly",
        hcl_type="bool",
        default="false",
        read=types.boolean,
        doc="`true` lets the task only read.",
    ),
    Option(
        name="bind_options",
        hcl_type="block",
        nested=_BIND,
        read=_nested(_BIND),
        doc="For type `bind`.",
    ),
    Option(
        name="tmpfs_options",
        hcl_type="block",
        nested=_TMPFS,
        read=_nested(_TMPFS),
        doc="For type `tmpfs`.",
    ),
)
_BINDS = frozenset({"bind", "volume"})
_VOLUME_PARTS = (2, 3)  # source:target[:options]


def mounts(value: Any, path: str, problems: list[str]) -> tuple[MountOption, ...]:
    """The original driver's blocks. Its rule: a bind says rbind and ro, so that nobody guesses."""
    found: list[MountOption] = []
    for where, fields in _blocks(MOUNTS, value, path, problems):
        mount = MountOption(**fields)
        if mount.type in _BINDS and not mount.options:
            problems.append(
                f"{where}: Options cannot be empty for mount type: {mount.type}."
                " You need to atleast pass rbind and ro."
            )
        found.append(mount)
    return tuple(found)


def mount_blocks(value: Any, path: str, problems: list[str]) -> tuple[MountOption, ...]:
    """Docker's blocks."""
    return tuple(MountOption(**fields) for _, fields in _blocks(MOUNT, value, path, problems))


def volumes(value: Any, path: str, problems: list[str]) -> tuple[MountOption, ...]:
    """Docker's short form, `source:target[:options]`."""
    found: list[MountOption] = []
    for index, text in enumerate(types.texts(value, path, problems)):
        parts = text.split(":")
        if len(parts) not in _VOLUME_PARTS or not all(parts):
            problems.append(
                f"{path}[{index}]: {types.shown(text)} is not source:target or"
                " source:target:options"
            )
            continue
        words = tuple(parts[2].split(",")) if len(parts) > 2 else ()  # noqa: PLR2004
        found.append(MountOption(type="bind", source=parts[0], target=parts[1], options=words))
    return tuple(found)


def _blocks(
    options: tuple[Option, ...], value: Any, path: str, problems: list[str]
) -> list[tuple[str, dict[str, Any]]]:
    """The blocks without a problem, each with its path."""
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        problems.append(f"{path}: {types.shown(value)} is not a list of blocks")
        return []
    if len(value) > types.MAX_ITEMS:
        problems.append(f"{path}: has {len(value)} blocks, at most {types.MAX_ITEMS}")
        return []
    found: list[tuple[str, dict[str, Any]]] = []
    for index, item in enumerate(value):
        where, before = f"{path}[{index}]", len(problems)
        if not isinstance(item, Mapping):
            problems.append(f"{where}: {types.shown(item)} is not a block")
            continue
        fields = read_fields(options, item, f"{where}.", problems)
        if len(problems) == before:
            found.append((where, fields))
    return found
