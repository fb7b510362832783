"""Options that jobs of other drivers carry, and that have no effect here or cannot be had here.

A job of Nomad's docker and podman drivers moves to this driver by another `driver`. So no option of
these drivers is unknown here: an option without a use is ignored with a warning, an option with an
effect that this driver cannot give is refused with another way. The other options of the two
drivers are in the tables of `task`, `auth` and `mounts`.

A value that also means "not set" (`false`, `0`, an empty text or list) has no effect.
"""

from __future__ import annotations

from typing import Any

from plugin.options import readers
from plugin.options.table import MAP, Option, block_fields

WARNINGS = "warnings"
"""Field of the sentences on options without effect."""
_ADDRESSES = (
    "Nomad and CNI choose the address of an allocation",
    'use `network { mode = "cni/NAME" }` in the group, with an IPAM that assigns the address',
)


def ignored(name: str, hcl_type: str, reason: str, *, only: tuple[Any, ...] = ()) -> Option:
    """Declares an option that has no effect here.

    Args:
        name: key in HCL.
        hcl_type: HCL type expression.
        reason: tells why the option can be ignored.
        only: the values that can be ignored; others are refused. Empty: every value.
    """

    def read(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
        if not value:
            return ()
        if only and value not in only:
            names = " or ".join(str(word) for word in only)
            problems.append(f"{path}: {readers.shown(value)} is not supported, only {names}")
        return (f"{path}: {reason}",)

    return Option(
        name=name, hcl_type=hcl_type, field=WARNINGS, read=read, doc=f"Ignored: {reason}."
    )


def refused(name: str, hcl_type: str, reason: str, advice: str) -> Option:
    """Declares an option whose effect this driver cannot give.

    Args:
        name: key in HCL.
        hcl_type: HCL type expression.
        reason: tells why the effect cannot be had.
        advice: tells what the job's author can do instead.
    """

    def read(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
        if value:
            problems.append(f"{path}: is not supported: {reason}; {advice}")
        return ()

    doc = f"Refused: {reason}; {advice}."
    return Option(name=name, hcl_type=hcl_type, field=WARNINGS, read=read, doc=doc)


def _block(name: str, doc: str, *nested: Option) -> Option:
    return Option(
        name=name,
        hcl_type="block",
        nested=nested,
        read=block_fields(nested),
        field=WARNINGS,
        doc=doc,
    )


def _tls_verify(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
    if value is False:
        problems.append(
            f"{path}: false is not supported: a job cannot weaken the connection to a registry; the"
            " operator allows plain HTTP or an own CA in hosts.toml below registry_config_path"
        )
    return ()


AUTH = (
    ignored("email", "string", "registries do not use an address for mail"),
    Option(
        name="tls_verify",
        hcl_type="bool",
        field=WARNINGS,
        read=_tls_verify,
        doc="Only `true`: plain HTTP and unknown certificates are in the operator's"
        " [hosts.toml](images.md#registries-and-mirrors).",
    ),
)


VOLUME = (
    ignored("no_copy", "bool", "no file of the image is copied into a mount"),
    ignored("labels", MAP, "a directory has no labels"),
    _block(
        "driver_config",
        "Docker's volume driver.",
        ignored("name", "string", "a directory needs no volume driver", only=("local",)),
        refused(
            "options",
            MAP,
            "the driver has no volume drivers",
            "use a CSI volume or a host volume of Nomad (`volume` and `volume_mount`)",
        ),
    ),
)

TASK = (
    ignored("container_exists_attempts", "number", "a start removes leftovers of earlier starts"),
    refused("ipv4_address", "string", *_ADDRESSES),
    refused("ipv6_address", "string", *_ADDRESSES),
    ignored("isolation", "string", "only Windows has modes of isolation"),
    refused("mac_address", "string", *_ADDRESSES),
    refused(
        "network_aliases",
        "list(string)",
        "networks of CNI have no aliases",
        "use services of Nomad or Consul, or extra_hosts",
    ),
    refused(
        "port_map",
        MAP,
        "Nomad maps ports",
        'use `network { mode = "bridge" port "NAME" { to = PORT } }` in the group',
    ),
    ignored("volume_driver", "string", "a path needs no volume driver", only=("local",)),
    refused(
        "init_path",
        "string",
        "a program of the node would run as root",
        "use init = true; the operator can set init_path in the plugin block",
    ),
    ignored("socket", "string", "a node has one containerd for this driver", only=("default",)),
    refused("static_ips", "list(string)", *_ADDRESSES),
    refused("static_mac", "string", *_ADDRESSES),
)
"""Options at the top of a task's config."""
