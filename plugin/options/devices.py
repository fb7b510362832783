"""Reader of a task's devices: Docker's two forms, and names of CDI devices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from actors.model.settings import DeviceOption
from plugin.options import readers

_CDI_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*/[A-Za-z0-9][A-Za-z0-9_-]*=[A-Za-z0-9_.:-]+")
_PERMISSIONS = re.compile(r"r?w?m?")
_DEVICE_KEYS = ("host_path", "container_path", "cgroup_permissions")
_SHORT_DEVICE_PARTS = 3


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
