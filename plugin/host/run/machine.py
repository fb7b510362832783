"""The machine as jobs of the dev host see it: host volumes, address, CNI directories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actors.health.doctor import CNI_DIRECTORIES

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostVolume:
    """A directory or file of the host that jobs may mount by a name."""

    path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """This machine as the job sees it. address is where its ports are."""

    volumes: Mapping[str, HostVolume]
    address: str = LOOPBACK
    cni_directories: tuple[str, ...] = CNI_DIRECTORIES
