"""Options of the plugin blocks of Nomad's docker and podman drivers without a use here.

The plugin block of a node moves to this driver by another name. As for jobs (`foreign`), no option
is unknown: an option without a use is ignored with a warning, an option with an effect that this
driver cannot give is refused with another way.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from plugin.options import readers
from plugin.options.foreign import WARNINGS, ignored, refused
from plugin.options.table import Option, block_fields

_DAEMON = "the driver speaks to containerd, not to a daemon of docker or podman"
_SOCKET = "write containerd_address, the path of containerd's socket"
_NO_INFRA = "a network needs no container"
_SOCKETS = (
    refused("name", "string", _DAEMON, _SOCKET),
    refused("socket_path", "string", _DAEMON, _SOCKET),
)
_ROOTLESS = (ignored("default_rootless_mode", "string", "the driver runs as root"),)
_TLS = tuple(
    refused(name, "string", _DAEMON, "remove the block: containerd's socket is a file of root")
    for name in ("cert", "key", "ca")
)


def _only_true(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
    if value is False:
        problems.append(
            f"{path}: false is not supported: a container ends with its task; logs stay in the"
            " allocation, and `nomad alloc fs` shows its files"
        )
    return ()


def _collection(value: Any, path: str, problems: list[str]) -> readers.Fields:
    """Reads `disable_log_collection`: True means that Nomad starts no process for logs."""
    disabled = readers.boolean(value, path, problems)
    return readers.Fields(log_collection="driver") if disabled else readers.Fields()


DRIVER = (
    refused("endpoint", "string", _DAEMON, _SOCKET),
    Option(
        name="tls",
        hcl_type="block",
        nested=_TLS,
        read=block_fields(_TLS),
        field=WARNINGS,
        doc="Docker's TLS to its daemon.",
    ),
    refused("socket_path", "string", _DAEMON, _SOCKET),
    dataclasses.replace(
        refused("socket", "block list", _DAEMON, _SOCKET), nested=_SOCKETS, repeated=True
    ),
    Option(
        name="networking",
        hcl_type="block",
        nested=_ROOTLESS,
        read=block_fields(_ROOTLESS),
        field=WARNINGS,
        doc="Podman's networks without root.",
    ),
    Option(
        name="disable_log_collection",
        field="log_collection",
        hcl_type="bool",
        read=_collection,
        doc='`true` is `log_collection = "driver"`.',
    ),
    ignored("nvidia_runtime", "string", "GPUs are CDI devices, without a runtime of their own"),
    ignored("infra_image", "string", _NO_INFRA),
    ignored("infra_image_pull_timeout", "string", _NO_INFRA),
    ignored("container_exists_attempts", "number", "a start removes leftovers of earlier starts"),
    ignored("windows_allow_insecure_container_admin", "bool", "the driver runs on Linux"),
    ignored("recover_stopped", "bool", "Nomad starts a task again that ended without the agent"),
    ignored("client_http_timeout", "string", "each call of containerd has its own limit of time"),
)
"""Options at the top of the plugin block."""

GC = (
    Option(
        name="container",
        hcl_type="bool",
        field=WARNINGS,
        read=_only_true,
        doc="Only `true`: a container is removed with its task.",
    ),
)
