"""The machine and the driver's configuration: the input of a start's plan beside the job."""

from __future__ import annotations

import os
from dataclasses import field
from pathlib import Path

from actors.model import identifiers
from actors.model.settings import DriverSettings
from actors.model.shim_groups import ShimGroups
from containerd.api.client import Containerd
from proto.values import dataclass
from workers import procfs

_CGROUPS = "/sys/fs/cgroup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The driver's configuration, and containerd on this machine.

    namespace: containerd's.
    maker: the process's name in `actors.orphans.peers`; empty for a process without objects.
    rootless: True in a user namespace.
    cgroups: False where containerd may create no cgroup: tasks have no limits and no statistics.
    shim_groups: the same object for all configurations of a plugin.
    """

    settings: DriverSettings
    containerd: Containerd
    namespace: str
    cgroup_v2: bool
    rootless: bool = False
    cgroups: bool = True
    maker: str = ""
    shim_groups: ShimGroups = field(default_factory=ShimGroups)

    @property
    def state_dir(self) -> Path:
        """Path of the driver's state directory."""
        return Path(self.settings.state_dir)


def this_node(settings: DriverSettings, maker: str = "") -> Node:
    """Returns this machine with a client of containerd that is not connected yet.

    Args:
        settings: the driver's settings.
        maker: the process's name as an owner; empty for a process without objects.
    """
    cgroup_v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    rootless = procfs.in_user_namespace()
    namespace = settings.containerd_namespace or identifiers.namespace(cgroup_v2=cgroup_v2)
    return Node(
        settings=settings,
        containerd=Containerd(settings.containerd_address, namespace),
        namespace=namespace,
        cgroup_v2=cgroup_v2,
        rootless=rootless,
        cgroups=not rootless or _own_cgroups(cgroup_v2=cgroup_v2),
        maker=maker,
    )


def _own_cgroups(*, cgroup_v2: bool) -> bool:
    """Returns whether root of this user namespace may create cgroups."""
    parent = _CGROUPS if cgroup_v2 else f"{_CGROUPS}/memory"
    return os.access(parent, os.W_OK)
