"""Reads CDI (Container Device Interface) files, in which vendors describe their devices.

A file in a spec directory describes devices of a kind such as `vendor.com/class`; a job names
`vendor.com/class=device`. A later directory overrides earlier directories, device by device.
Each start reads the files: vendors write new files when hardware or a driver changes.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from containerd.documents import Document
from containerd.spec.devices import DeviceNode, host_nodes, unique
from containerd.spec.mounts import MountPoint, clean_target
from proto.errors import DriverError, start_refused
from proto.values import dataclass

_MAX_FILE_BYTES = 4 * 1024 * 1024
_HOOKS = (
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
)
_KNOWN_EDITS = frozenset(
    {"env", "deviceNodes", "mounts", "hooks", "additionalGids", "additionalGIDs"}
)
_ADVICE = {
    "nvidia.com": "write the GPUs of this node with the NVIDIA Container Toolkit: nvidia-ctk cdi"
    " generate --format=json --output=/etc/cdi/nvidia.json"
}
"""Ways to get the files of a vendor."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """Additions to a task's spec for the CDI devices; hooks are OCI hooks by the hook's name."""

    env: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[DeviceNode, ...] = ()
    mounts: tuple[MountPoint, ...] = ()
    hooks: Mapping[str, tuple[Document, ...]] = field(default_factory=dict)
    additional_gids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Device:
    """A device in a CDI file; `common` has the edits for all devices of the file."""

    file: str
    edits: Document
    common: Document


def edits(names: Iterable[str], directories: Iterable[str]) -> Edits:
    """Returns the edits for the named devices. Reads the directories.

    The common edits of a file count once, however many devices of the file are named.

    Raises:
        DriverError: code INVALID; a device is unknown, or the driver cannot apply the file.
    """
    wanted = tuple(dict.fromkeys(names))
    if not wanted:
        return Edits()
    searched = tuple(directories)
    known, unread = _read(searched)
    merged = _Merged()
    common_done: set[str] = set()
    for name in wanted:
        device = known.get(name)
        if device is None:
            raise _unknown(name, known, unread, searched)
        if device.file not in common_done:
            common_done.add(device.file)
            merged.add(device.common, device.file)
        merged.add(device.edits, device.file)
    return merged.result()


class _Merged:
    """The edits of several devices, merged."""

    def __init__(self) -> None:
        self._env: dict[str, str] = {}
        self._devices: list[DeviceNode] = []
        self._mounts: list[MountPoint] = []
        self._hooks: dict[str, list[Document]] = {}
        self._gids: list[int] = []

    def add(self, edit: Document, file: str) -> None:
        """Adds the containerEdits of a file or of a device."""
        try:
            self._add(edit, file)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _broken(file, f"{type(error).__name__}: {error}") from error

    def _add(self, edit: Document, file: str) -> None:
        unknown = sorted(key for key, value in edit.items() if value and key not in _KNOWN_EDITS)
        if unknown:
            raise _broken(file, f"containerEdits.{unknown[0]} is not supported")
        for entry in edit.get("env") or ():
            name, _, value = str(entry).partition("=")
            self._env[name] = value
        for node in edit.get("deviceNodes") or ():
            self._devices += _nodes(node)
        for mount in edit.get("mounts") or ():
            self._mounts.append(_mount(mount))
        for hook in edit.get("hooks") or ():
            when = str(hook["hookName"])
            if when not in _HOOKS:
                raise _broken(file, f"hook {when[:64]!r} is none of {', '.join(_HOOKS)}")
            entry = {key: hook[key] for key in ("path", "args", "env", "timeout") if hook.get(key)}
            if not str(hook["path"]).startswith("/"):
                raise _broken(file, f"the path of a {when} hook is not absolute")
            if entry not in self._hooks.setdefault(when, []):
                self._hooks[when].append(entry)
        for key in ("additionalGids", "additionalGIDs"):
            self._gids += [int(gid) for gid in edit.get(key) or () if int(gid) > 0]

    def result(self) -> Edits:
        """Returns all edits that were added."""
        return Edits(
            env=self._env,
            devices=unique(self._devices),
            mounts=tuple(dict.fromkeys(self._mounts)),
            hooks={when: tuple(hooks) for when, hooks in self._hooks.items()},
            additional_gids=tuple(dict.fromkeys(self._gids)),
        )


def _nodes(node: Document) -> list[DeviceNode]:
    """Converts a deviceNodes entry; values that the file lacks are the host's."""
    path = str(node["path"])
    permissions = str(node.get("permissions") or "rwm")
    if node.get("type") in {"c", "b", "u"} and node.get("major") is not None:
        return [
            DeviceNode(
                path=path,
                kind="c" if node["type"] == "u" else str(node["type"]),
                major=int(node["major"]),
                minor=int(node.get("minor") or 0),
                mode=int(node.get("fileMode") or 0o666),
                uid=int(node.get("uid") or 0),
                gid=int(node.get("gid") or 0),
                permissions=permissions,
            )
        ]
    host = str(node.get("hostPath") or path)
    return host_nodes(host, path, permissions, what="devices (CDI)")


def _mount(mount: Document) -> MountPoint:
    """Converts a mounts entry; keeps the options, because the file is the operator's."""
    options = [str(option) for option in mount.get("options") or ()]
    kind = str(mount.get("type") or "bind")
    if kind in {"bind", "none"}:
        kind = "bind"
        if {"bind", "rbind"}.isdisjoint(options):
            options.append("rbind")
    return MountPoint(
        target=clean_target(str(mount["containerPath"]), "devices (CDI)"),
        source=str(mount["hostPath"]),
        type=kind,
        options=tuple(options),
    )


def _read(directories: tuple[str, ...]) -> tuple[dict[str, _Device], list[str]]:
    """Returns all devices by name, and a sentence for each unreadable file."""
    known: dict[str, _Device] = {}
    unread: list[str] = []
    for directory in directories:
        in_directory: dict[str, _Device] = {}
        try:
            files = sorted(os.listdir(directory))  # noqa: PTH208 - names only
        except OSError:
            continue
        for name in files:
            path = f"{directory}/{name}"
            if not name.startswith(".") and name.endswith((".json", ".yaml", ".yml")):
                try:
                    described = _devices_of(_document(path), path)
                except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                    unread.append(f"{path}: {error}")
                    _log.warning("CDI file skipped", extra={"path": path, "reason": str(error)})
                    continue
                for device in in_directory.keys() & described.keys():
                    # Two files of a directory contradict each other; the driver uses neither.
                    unread.append(f"{device} is in {in_directory[device].file} and in {path}")
                    del in_directory[device], described[device]
                in_directory |= described
        known |= in_directory
    return known, unread


def _yaml(data: bytes) -> Any:
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        raise ValueError("a YAML file needs Debian's python3-yaml") from None
    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _document(path: str) -> Document:
    data = Path(path).read_bytes()
    if len(data) > _MAX_FILE_BYTES:
        raise ValueError("the file is too large")
    try:
        document = json.loads(data) if path.endswith(".json") else _yaml(data)
    except RecursionError:
        raise ValueError("the file is nested too deeply") from None
    if not isinstance(document, dict):
        raise TypeError("the file is no map")
    return document


def _devices_of(document: Document, path: str) -> dict[str, _Device]:
    kind = document["kind"]
    common = document.get("containerEdits") or {}
    described: dict[str, _Device] = {}
    for device in document.get("devices") or ():
        name = f"{kind}={device['name']}"
        described[name] = _Device(path, device.get("containerEdits") or {}, common)
    return described


def _unknown(
    name: str, known: Mapping[str, _Device], unread: list[str], searched: tuple[str, ...]
) -> DriverError:
    names = ", ".join(sorted(known)[:20]) or "none"
    vendor = _ADVICE.get(name.partition("/")[0])
    advice = f"{vendor}; " if vendor else ""
    problem = f"; left out: {'; '.join(unread[:5])}" if unread else ""
    return start_refused(
        f"devices: no CDI device {name[:128]!r} in {' and '.join(searched)}",
        f"{advice}known: {names}{problem}",
    )


def _broken(file: str, reason: str) -> DriverError:
    return start_refused(
        f"devices: the CDI file {file} cannot be used: {reason}", "ask the device's vendor"
    )
