"""CDI, the Container Device Interface: what a vendor's spec files say a device needs.

A file in one of the spec directories describes devices of one kind, `vendor.com/class`; a job names
`vendor.com/class=device`. A later directory overrides an earlier one, device by device.
Files are read at every start: vendors write them anew when hardware or a driver changes.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from containerd.documents import Document
from containerd.spec import devices
from containerd.spec.devices import DeviceNode
from containerd.spec.mounts import MountPoint, clean_target, invalid

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
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What a task gets for its CDI devices. hooks are the OCI spec's, by their point in time."""

    env: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[DeviceNode, ...] = ()
    mounts: tuple[MountPoint, ...] = ()
    hooks: Mapping[str, tuple[Document, ...]] = field(default_factory=dict)
    additional_gids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Device:
    """A device and the file that describes it; common is what all of the file's devices need."""

    file: str
    own: Document
    common: Document


def edits(names: Iterable[str], directories: Iterable[str]) -> Edits:
    """Returns what the named devices need, common parts of a file once. Reads the directories.

    Raises:
        DriverError: code INVALID; a device is unknown, or what its file says cannot be done.
    """
    wanted = tuple(dict.fromkeys(names))
    if not wanted:
        return Edits()
    places = tuple(directories)
    known, unread = _read(places)
    made = _Merged()
    common_done: set[str] = set()
    for name in wanted:
        device = known.get(name)
        if device is None:
            raise _unknown(name, known, unread, places)
        if device.file not in common_done:
            common_done.add(device.file)
            made.add(device.common, device.file)
        made.add(device.own, device.file)
    return made.result()


class _Merged:
    """Collects edits of several devices."""

    def __init__(self) -> None:
        self._env: dict[str, str] = {}
        self._devices: list[DeviceNode] = []
        self._mounts: list[MountPoint] = []
        self._hooks: dict[str, list[Document]] = {}
        self._gids: list[int] = []

    def add(self, edit: Document, file: str) -> None:
        """Adds one containerEdits of a file."""
        try:
            self._add(edit, file)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _broken(file, f"{type(error).__name__}: {error}") from error

    def _add(self, edit: Document, file: str) -> None:
        strange = sorted(key for key, value in edit.items() if value and key not in _KNOWN_EDITS)
        if strange:
            raise _broken(file, f"containerEdits.{strange[0]} is not supported")
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
                raise _broken(file, f"the path of its {when} hook is not absolute")
            if entry not in self._hooks.setdefault(when, []):
                self._hooks[when].append(entry)
        for key in ("additionalGids", "additionalGIDs"):
            self._gids += [int(gid) for gid in edit.get(key) or () if int(gid) > 0]

    def result(self) -> Edits:
        """All that was added."""
        return Edits(
            env=self._env,
            devices=devices.unique(self._devices),
            mounts=tuple(dict.fromkeys(self._mounts)),
            hooks={when: tuple(found) for when, found in self._hooks.items()},
            additional_gids=tuple(dict.fromkeys(self._gids)),
        )


def _nodes(node: Document) -> list[DeviceNode]:
    """A node of the file: the host's, with what the file says otherwise."""
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
    return devices.host_nodes(host, path, permissions, what="devices (CDI)")


def _mount(mount: Document) -> MountPoint:
    """A mount of the file: the operator's word, so its options are not ours to choose."""
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
    """All devices by name, and a sentence for each file that cannot be read."""
    known: dict[str, _Device] = {}
    unread: list[str] = []
    for directory in directories:
        here: dict[str, _Device] = {}
        try:
            files = sorted(os.listdir(directory))  # noqa: PTH208 - names only
        except OSError:
            continue
        for name in files:
            path = f"{directory}/{name}"
            if not name.startswith(".") and name.endswith((".json", ".yaml", ".yml")):
                try:
                    found = _devices_of(_document(path), path)
                except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                    unread.append(f"{path}: {error}")
                    _log.warning("a CDI file is left out", extra={"file": path, "why": str(error)})
                    continue
                for device in here.keys() & found.keys():
                    # Two files of one directory say different things: nobody knows which is right.
                    unread.append(f"{device} is in {here[device].file} and in {path}")
                    del here[device], found[device]
                here |= found
        known |= here
    return known, unread


def _yaml(data: bytes) -> Any:
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        raise ValueError("it is YAML, which needs Debian's python3-yaml") from None
    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _document(path: str) -> Document:
    data = Path(path).read_bytes()
    if len(data) > _MAX_FILE_BYTES:
        raise ValueError("it is too large")
    try:
        found = json.loads(data) if path.endswith(".json") else _yaml(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise TypeError("it is no map")
    return found


def _devices_of(document: Document, path: str) -> dict[str, _Device]:
    kind = document["kind"]
    common = document.get("containerEdits") or {}
    found: dict[str, _Device] = {}
    for device in document.get("devices") or ():
        own = device.get("containerEdits") or {}
        found[f"{kind}={device['name']}"] = _Device(path, own, common)
    return found


def _unknown(
    name: str, known: Mapping[str, _Device], unread: list[str], places: tuple[str, ...]
) -> Exception:
    names = ", ".join(sorted(known)[:20]) or "none"
    problem = f"; left out: {'; '.join(unread[:5])}" if unread else ""
    return invalid(
        f"devices: no CDI device {name[:128]!r} in {' and '.join(places)}",
        f"known: {names}{problem}",
    )


def _broken(file: str, why: str) -> Exception:
    return invalid(f"devices: the CDI file {file} cannot be used: {why}", "ask its vendor")
