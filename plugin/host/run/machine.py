"""This machine as seen by jobs of the dev host: host volumes, address, CNI directories."""

from __future__ import annotations

from collections.abc import Mapping

from actors.model.cni import CNI_DIRECTORIES
from proto.values import dataclass

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostVolume:
    """A directory or file of this machine that jobs mount by a name."""

    path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """Parts of this machine for a job.

    Attributes:
        volumes: host volumes by name.
        address: IPv4 address for the ports.
        cni_directories: directories of CNI plugins, in the order of the search.
    """

    volumes: Mapping[str, HostVolume]
    address: str = LOOPBACK
    cni_directories: tuple[str, ...] = CNI_DIRECTORIES
