"""Changes of an OCI spec for a containerd that runs without root, in a user namespace. Pure.

The kernel refuses a few steps of a start in a user namespace: to mount sysfs for a network
namespace of another user namespace, to lower an OOM score, and to write to cgroups that belong to
the machine's root. A runtime reports such a refusal as the failure of the start.
"""

from __future__ import annotations

from containerd.documents import Document
from proto.values import dataclass

_HOSTS_SYS = {
    "destination": "/sys",
    "type": "bind",
    "source": "/sys",
    "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rootless:
    """Limits of a user namespace.

    cgroups: True if containerd may create cgroups.
    least_oom_score: lowest OOM score that a process of containerd may set.
    foreign_network: True if the task's network namespace belongs to another user namespace.
    """

    cgroups: bool = False
    least_oom_score: int = 0
    foreign_network: bool = False


def adapt(document: Document, limits: Rootless) -> None:
    """Removes from a spec all parts that the kernel refuses in a user namespace."""
    linux, process = document["linux"], document["process"]
    if not limits.cgroups:
        # With an empty path a runtime without root goes on without a cgroup.
        linux["cgroupsPath"] = ""
        linux["resources"] = {}
    process["oomScoreAdj"] = max(process["oomScoreAdj"], limits.least_oom_score)
    if limits.foreign_network:
        document["mounts"] = [
            _HOSTS_SYS if mount["type"] == "sysfs" else mount for mount in document["mounts"]
        ]
