"""Options that stand for an agent's client block: host volumes, address, CNI plugins."""

from __future__ import annotations

import argparse
import ipaddress
from pathlib import Path
from typing import Any

from plugin.cli import plugin_block
from plugin.host.job.block_reader import BlockReader, labelled
from plugin.host.job.hcl_job import merged
from plugin.host.run.machine import LOOPBACK, HostOptions, HostVolume
from proto.errors import Code, DriverError


def read(arguments: argparse.Namespace) -> HostOptions:
    """Reads and checks the options.

    Raises:
        DriverError: code INVALID, a volume or the address is wrong.
    """
    volumes = _from_file(arguments.config_file) if arguments.config_file else {}
    written = plugin_block.pairs(arguments.host_volume, "--host-volume", "NAME=PATH")
    for name, text in written.items():
        path, colon, mode = text.rpartition(":")
        if not colon or mode not in {"ro", "rw"}:
            path, mode = text, "rw"
        volumes[name] = HostVolume(path=path, read_only=mode == "ro")
    for name, volume in volumes.items():
        if not Path(volume.path).is_absolute() or not Path(volume.path).exists():
            raise DriverError(
                f"host volume {name}: {volume.path or 'an empty path'} does not exist",
                resolution="name the absolute path of a directory or file of this machine",
                code=Code.INVALID,
            )
    return HostOptions(
        volumes=volumes,
        address=LOOPBACK if arguments.host_ip is None else _address(arguments.host_ip),
        cni_directories=tuple(filter(None, arguments.cni_path.split(":"))),
    )


def _address(text: str) -> str:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        address = ipaddress.IPv4Address(0)
    if address.is_unspecified:
        raise DriverError(
            f"--host-ip {text}: not an IPv4 address of this machine", code=Code.INVALID
        )
    return str(address)


def _from_file(file: Path) -> dict[str, HostVolume]:
    """Reads the `host_volume` blocks of an agent's client block."""
    client = merged(plugin_block.tree(file).get("client"))
    reader = BlockReader()
    volumes = {
        name: _volume(reader, f'client: host_volume "{name}"', body)
        for name, body in labelled(client.get("host_volume"))
    }
    if reader.problems:
        raise DriverError(f"{file}: {'; '.join(reader.problems)}", code=Code.INVALID)
    return volumes


def _volume(reader: BlockReader, where: str, body: dict[str, Any]) -> HostVolume:
    return HostVolume(
        path=str(body.get("path") or ""), read_only=reader.flag(where, body, "read_only")
    )
