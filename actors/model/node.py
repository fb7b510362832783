"""The machine as the driver is configured for it: what a start is planned for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from actors.model import identifiers
from actors.model.settings import DriverSettings
from containerd.api.client import Containerd


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The driver's configuration, and containerd on this machine. namespace is containerd's.

    maker is this process's name in `actors.orphans.peers`, empty where it makes nothing.
    """

    settings: DriverSettings
    containerd: Containerd
    namespace: str
    cgroup_v2: bool
    maker: str = ""

    @property
    def state_dir(self) -> Path:
        """The driver's state directory."""
        return Path(self.settings.state_dir)


def this_node(settings: DriverSettings, maker: str = "") -> Node:
    """This machine, containerd not yet connected."""
    cgroup_v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    namespace = settings.containerd_namespace or identifiers.namespace(cgroup_v2=cgroup_v2)
    return Node(
        settings=settings,
        containerd=Containerd(settings.containerd_address, namespace),
        namespace=namespace,
        cgroup_v2=cgroup_v2,
        maker=maker,
    )
