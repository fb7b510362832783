"""Options of mounts and devices: `mounts` and `mount` in two forms, `volumes`, and `devices`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from actors.model.settings import DeviceOption, MountOption
from plugin.options import foreign, forms, readers
from plugin.options.table import Option, block_fields, read_fields

_CDI_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*/[A-Za-z0-9][A-Za-z0-9_-]*=[A-Za-z0-9_.:-]+")
_PERMISSIONS = re.compile(r"r?w?m?")
_DEVICE_KEYS = ("host_path", "container_path", "cgroup_permissions")
_SHORT_DEVICE_PARTS = 3

_TYPE = Option(
    name="type",
    hcl_type="string",
    default='"volume"',
    read=readers.choice("volume", "bind", "tmpfs"),
    doc="`bind`, `tmpfs` or `volume`.",
)
_TARGET = Option(
    name="target",
    hcl_type="string",
    required=True,
    read=readers.required_text,
    doc="Path in the container.",
)
_SOURCE = Option(
    name="source",
    hcl_type="string",
    read=readers.text(),
    doc="Path on the host; a relative path starts at the task directory, as `local/…`.",
)
_BIND = (
    Option(
        name="propagation",
        hcl_type="string",
        read=readers.choice("private", "rprivate", "slave", "rslave", "shared", "rshared"),
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
        read=readers.integer(0, 0o7777),
        doc="Permissions of the root directory, as a decimal number (511 is 0777).",
    ),
)


MOUNT = (
    _TYPE,
    _TARGET,
    _SOURCE,
    Option(
        name="options",
        hcl_type="list(string)",
        read=readers.texts,
        doc="Mount options, such as `rbind` and `ro`.",
    ),
    Option(
        name="readonly",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc="`true` lets the task only read.",
    ),
    Option(
        name="bind_options",
        hcl_type="block",
        nested=_BIND,
        read=block_fields(_BIND),
        doc="For type `bind`.",
    ),
    Option(
        name="tmpfs_options",
        hcl_type="block",
        nested=_TMPFS,
        read=block_fields(_TMPFS),
        doc="For type `tmpfs`.",
    ),
    Option(
        name="volume_options",
        hcl_type="block",
        field=foreign.WARNINGS,
        nested=foreign.VOLUME,
        read=block_fields(foreign.VOLUME),
        doc="For type `volume`, with a path as its source.",
    ),
)
_BINDS = frozenset({"bind", "volume"})
_VOLUME_PARTS = (2, 3)  # source:target[:options]


def mounts(value: Any, path: str, problems: list[str]) -> readers.Fields:
    """Reads blocks with the keys of the Go driver and of Docker.

    By the Go driver's rule a bind has options, if the block has the key.
    """
    blocks = _blocks(MOUNT, value, path, problems)
    for where, item in _items(value, path):
        kind = item.get("type") or "volume"
        if item.get("options") == [] and kind in _BINDS:
            problems.append(
                f"{where}: Options cannot be empty for mount type: {kind}."
                " You need to atleast pass rbind and ro."
            )
    warnings = [fields.pop(foreign.WARNINGS, ()) for fields in blocks]
    return readers.Fields(
        mounts=tuple(MountOption(**fields) for fields in blocks),
        warnings=tuple(sentence for sentences in warnings for sentence in sentences),
    )


def _items(value: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields (path, block) of each block; a value of another form has its problem already."""
    items: list[Any] = [value]
    if isinstance(value, list | tuple):
        items = [*value]
    for index, item in enumerate(items):
        if isinstance(item, Mapping):
            yield f"{path}[{index}]", item


def volumes(value: Any, path: str, problems: list[str]) -> tuple[MountOption, ...]:
    """Reads mounts in Docker's short form, `source:target[:options]`."""
    read: list[MountOption] = []
    for index, text in enumerate(readers.texts(value, path, problems)):
        parts = text.split(":")
        if len(parts) not in _VOLUME_PARTS or not all(parts):
            problems.append(
                f"{path}[{index}]: {readers.shown(text)} is not source:target or"
                " source:target:options"
            )
            continue
        words = tuple(parts[2].split(",")) if len(parts) > 2 else ()  # noqa: PLR2004
        read.append(MountOption(type="bind", source=parts[0], target=parts[1], options=words))
    return tuple(read)


def tmpfs(value: Any, path: str, problems: list[str]) -> tuple[MountOption, ...]:
    """Reads file systems in memory in Podman's form, `target[:options]`.

    Podman copies the image's files at the target, unless the job says `notmpcopyup`.
    """
    read: list[MountOption] = []
    for text in readers.texts(value, path, problems):
        target, _, options = text.partition(":")
        words = [word for word in options.split(",") if word]
        words += [flag for flag in ("nosuid", "nodev", "noexec") if flag[2:] not in words]
        words += [] if "notmpcopyup" in words else ["tmpcopyup"]
        kept = tuple(dict.fromkeys(word for word in words if word != "notmpcopyup"))
        read.append(MountOption(type="tmpfs", target=target, options=kept))
    return tuple(read)


def _blocks(
    options: tuple[Option, ...], value: Any, path: str, problems: list[str]
) -> list[dict[str, Any]]:
    """Returns the fields of each block without a problem."""
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        problems.append(f"{path}: {readers.shown(value)} is not a list of blocks")
        return []
    if len(value) > readers.MAX_ITEMS:
        problems.append(f"{path}: has {len(value)} blocks, at most {readers.MAX_ITEMS}")
        return []
    read: list[dict[str, Any]] = []
    for index, item in enumerate(value):
        where, before = f"{path}[{index}]", len(problems)
        if not isinstance(item, Mapping):
            problems.append(f"{where}: {readers.shown(item)} is not a block")
            continue
        fields = read_fields(options, item, f"{where}.", problems)
        if len(problems) == before:
            read.append(fields)
    return read


def devices(value: Any, path: str, problems: list[str]) -> readers.Fields:
    """Reads devices in the forms of Docker's command line and blocks, and names of CDI devices."""
    items: Any = [value] if isinstance(value, Mapping | str) else value
    if not isinstance(items, list | tuple) or len(items) > readers.MAX_ITEMS:
        problems.append(f"{path}: {readers.shown(value)} is not a list of devices")
        return readers.Fields()
    plain: list[DeviceOption] = []
    names: list[str] = []
    for index, item in enumerate(items):
        where = f"{path}[{index}]"
        if isinstance(item, str) and _CDI_NAME.fullmatch(item):
            names.append(item)
        elif isinstance(item, str):
            plain += _short_device(item, where, problems)
        elif isinstance(item, Mapping):
            plain += _device_block(item, where, problems)
        else:
            problems.append(f"{where}: {readers.shown(item)} is not a device")
    return readers.Fields(devices=tuple(plain), cdi_devices=tuple(names))


def _short_device(text: str, path: str, problems: list[str]) -> list[DeviceOption]:
    parts = text.split(":")
    host, inside, permissions = (*parts, "", "")[:_SHORT_DEVICE_PARTS]
    if len(parts) == 2 and inside and not inside.startswith("/"):  # noqa: PLR2004
        inside, permissions = "", inside
    if len(parts) > _SHORT_DEVICE_PARTS:
        problems.append(f"{path}: {readers.shown(text)} is not host:container:permissions")
        return []
    return _device(path, problems, host, inside, permissions)


def _device_block(block: Mapping[Any, Any], path: str, problems: list[str]) -> list[DeviceOption]:
    unknown = [str(key)[:64] for key in block if key not in _DEVICE_KEYS]
    problems += [f"{path}.{key}: no such option" for key in unknown[:10]]
    texts = [block.get(key) or "" for key in _DEVICE_KEYS]
    if unknown or not all(isinstance(text, str) for text in texts):
        problems.append(f"{path}: host_path, container_path and cgroup_permissions are strings")
        return []
    return _device(path, problems, *texts)


def _device(
    path: str, problems: list[str], host: str, inside: str, permissions: str
) -> list[DeviceOption]:
    before = len(problems)
    for device_path in (host, inside or host):
        readers.absolute_path(device_path or "nothing", path, problems)
    if not _PERMISSIONS.fullmatch(permissions):
        problems.append(f"{path}: permissions {readers.shown(permissions)} are not some of rwm")
    if len(problems) > before:
        return []
    return [
        DeviceOption(
            host_path=host,
            container_path=inside or host,
            cgroup_permissions=permissions or "rwm",
        )
    ]
