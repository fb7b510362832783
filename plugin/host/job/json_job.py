"""Job in Nomad's JSON, in the form of the API and of `nomad job run -output`.

The result is the tree that an HCL file would have. A JSON job has a value for each of Nomad's
defaults. So only keys with a value reach the tree, and only such a key can be refused.
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
    "SELinuxLabel": "selinux_label",
}
_TEMPLATE = {
    "EmbeddedTmpl": "data",
    "DestPath": "destination",
    "Perms": "perms",
    "SourcePath": "source",
    "Envvars": "env",
}


def parse_json(name: str, text: str) -> Block:
    """Returns the job as `{"job": [{id: body}]}`.

    Raises:
        DriverError: code INVALID, the text is not a job in JSON.
    """
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise too_deep(name) from None
    except ValueError as error:
        raise DriverError(f"{name}: is not JSON: {error}", code=Code.INVALID) from None
    body = document.get("Job", document) if isinstance(document, dict) else None
    if not isinstance(body, dict) or not isinstance(body.get("TaskGroups"), list):
        raise DriverError(
            f"{name}: has no TaskGroups",
            resolution="use Nomad's JSON form of a job, as `nomad job run -output` prints",
            code=Code.INVALID,
        )
    job = _renamed(body, _JOB)
    try:
        job["group"] = [_group(group) for group in _objects(body, "TaskGroups")]
    except ValueError as error:
        raise DriverError(f"{name}: {error}", code=Code.INVALID) from None
    return {"job": [{str(body.get("ID") or body.get("Name") or "job"): job}]}


def _unique(pairs: list[tuple[str, Any]]) -> Block:
    """Returns an object; refuses equal keys, of which parsers choose differently."""
    block = dict(pairs)
    if len(block) < len(pairs):
        names = [key for key, _ in pairs]
        twice = next(key for key in names if names.count(key) > 1)
        raise ValueError(f"the key {twice!r} appears twice in one object")
    return block


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a number in JSON")


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
        # The API has nanoseconds; a person writes "10s".
        block["kill_timeout"] = f"{timeout}ns" if isinstance(timeout, int) else timeout
    templates = [_renamed(item, _TEMPLATE) for item in _objects(task, "Templates")]
    if templates:
        block["template"] = templates
    mounts = [_renamed(item, _VOLUME_MOUNT) for item in _objects(task, "VolumeMounts")]
    if mounts:
        block["volume_mount"] = mounts
    return {str(task.get("Name") or "task"): block}


def _objects(block: Block, key: str) -> list[Block]:
    """Returns the objects of a list; an absent list is empty.

    Raises:
        ValueError: the value is not a list of objects.
    """
    items = block.get(key) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{key} is not a list of objects")
    return items


def _renamed(source: Block, names: Mapping[str, str]) -> Block:
    """Returns the keys with a value, under their HCL names."""
    return {hcl: source[key] for key, hcl in names.items() if source.get(key)}
