"""A job in Nomad's JSON, as the API takes it or `nomad job run -output` prints it.

It becomes the tree that an HCL file gives. JSON jobs are full of Nomad's defaults, so only what
has a value that the embedded host cannot follow is passed on to be refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from plugin.host.job.text import Block, too_deep
from proto.errors import Code, DriverError

_JOB = {
    "ID": "id",
    "Name": "name",
    "Region": "region",
    "Datacenters": "datacenters",
    "Namespace": "namespace",
    "Meta": "meta",
    "ParameterizedJob": "parameterized",
}
_GROUP = {"Meta": "meta"}
_TASK = {
    "Driver": "driver",
    "Config": "config",
    "Env": "env",
    "User": "user",
    "Meta": "meta",
    "KillSignal": "kill_signal",
    "Artifacts": "artifact",
    "Vault": "vault",
    "Lifecycle": "lifecycle",
    "Kind": "kind",
    "DispatchPayload": "dispatch_payload",
    "CSIPluginConfig": "csi_plugin",
}
_RESOURCES = {
    "CPU": "cpu",
    "MemoryMB": "memory",
    "MemoryMaxMB": "memory_max",
    "Cores": "cores",
    "Devices": "device",
}
_DNS = {"Servers": "servers", "Searches": "searches", "Options": "options"}
_VOLUME = {
    "Type": "type",
    "Source": "source",
    "ReadOnly": "read_only",
    "PerAlloc": "per_alloc",
    "MountOptions": "mount_options",
}
_VOLUME_MOUNT = {
    "Volume": "volume",
    "Destination": "destination",
    "ReadOnly": "read_only",
    "PropagationMode": "propagation_mode",
}
_TEMPLATE = {
    "EmbeddedTmpl": "data",
    "DestPath": "destination",
    "Perms": "perms",
    "SourcePath": "source",
    "Envvars": "env",
}


def parse(name: str, text: str) -> Block:
    """The job as `{"job": [{id: body}]}`.

    Raises:
        DriverError: code INVALID, it is not a job in JSON.
    """
    try:
        document = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise too_deep(name) from None
    except ValueError as error:
        raise DriverError(f"{name}: is not JSON: {error}", code=Code.INVALID) from None
    body = document.get("Job", document) if isinstance(document, dict) else None
    if not isinstance(body, dict) or not isinstance(body.get("TaskGroups"), list):
        raise DriverError(
            f"{name}: has no TaskGroups",
            resolution="give a job in Nomad's JSON form, as `nomad job run -output` prints it",
            code=Code.INVALID,
        )
    job = _renamed(body, _JOB)
    try:
        job["group"] = [_group(group) for group in _objects(body, "TaskGroups")]
    except ValueError as error:
        raise DriverError(f"{name}: {error}", code=Code.INVALID) from None
    return {"job": [{str(body.get("ID") or body.get("Name") or "job"): job}]}


def _once(pairs: list[tuple[str, Any]]) -> Block:
    """Returns an object. Readers differ in which of two equal keys they take."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        twice = next(key for key in names if names.count(key) > 1)
        raise ValueError(f"the key {twice!r} is given twice in one object")
    return found


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _group(group: Block) -> Block:
    block = _renamed(group, _GROUP)
    if group.get("Count") is not None:
        block["count"] = group["Count"]
    networks = [_network(item) for item in _objects(group, "Networks")]
    if networks:
        block["network"] = networks
    volumes = group.get("Volumes")
    if isinstance(volumes, dict):
        block["volume"] = [
            {label: _renamed(volume, _VOLUME)}
            for label, volume in volumes.items()
            if isinstance(volume, dict)
        ]
    block["task"] = [_task(task) for task in _objects(group, "Tasks")]
    return {str(group.get("Name") or "group"): block}


def _network(network: Block) -> Block:
    ports = [
        {str(port.get("Label")): _port(port, static=static)}
        for static, key in ((True, "ReservedPorts"), (False, "DynamicPorts"))
        for port in _objects(network, key)
    ]
    block: Block = {"mode": network.get("Mode") or "host"}
    if ports:
        block["port"] = ports
    if network.get("Hostname"):
        block["hostname"] = network["Hostname"]
    if isinstance(network.get("DNS"), dict):
        block["dns"] = [_renamed(network["DNS"], _DNS)]
    return block


def _port(port: Block, *, static: bool) -> Block:
    body = _renamed(port, {"To": "to"})
    if static:
        body["static"] = port.get("Value")
    if (network := port.get("HostNetwork")) and network != "default":
        body["host_network"] = network
    return body


def _task(task: Block) -> Block:
    block = _renamed(task, _TASK)
    resources = task.get("Resources")
    if isinstance(resources, dict):
        block["resources"] = _renamed(resources, _RESOURCES)
    timeout = task.get("KillTimeout")
    if timeout:
        # The API gives nanoseconds; people write "10s".
        block["kill_timeout"] = f"{timeout}ns" if isinstance(timeout, int) else timeout
    templates = [_renamed(item, _TEMPLATE) for item in _objects(task, "Templates")]
    if templates:
        block["template"] = templates
    mounts = [_renamed(item, _VOLUME_MOUNT) for item in _objects(task, "VolumeMounts")]
    if mounts:
        block["volume_mount"] = mounts
    return {str(task.get("Name") or "task"): block}


def _objects(block: Block, key: str) -> list[Block]:
    """The objects of a list that may be missing.

    Raises:
        ValueError: it is something else.
    """
    found = block.get(key) or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ValueError(f"{key} is not a list of objects")
    return found


def _renamed(source: Block, names: Mapping[str, str]) -> Block:
    """The keys that have a value, under their HCL names."""
    return {hcl: source[key] for key, hcl in names.items() if source.get(key)}
