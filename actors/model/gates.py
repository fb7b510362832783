"""The operator's gates: options of a job that this node refuses. Names and rules are Docker's.

Each gate is an option of the plugin block (`plugin.options.gates`). A closed gate is written once
for the node, or for one Nomad namespace.
"""

from __future__ import annotations

from collections.abc import Iterable

from containerd.security import apparmor, capabilities
from proto.errors import DriverError
from proto.values import dataclass

UNCONFINED = apparmor.UNCONFINED

# The capabilities that Nomad's own drivers allow by default (drivers/shared/capabilities).
NOMAD_CAPABILITIES = (
    "audit_write",
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "mknod",
    "net_bind_service",
    "setfcap",
    "setgid",
    "setpcap",
    "setuid",
    "sys_chroot",
)
EXEC_OPTIONS = ("user", "cwd", "env", "root")
"""Words of the gate `exec_options`; `root` is root as a user in a task that is not root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """Limits for the jobs of a node. None is an open gate; an empty tuple allows nothing.

    allow_privileged: True also opens the modes of the host.
    allow_runtimes: empty: every known runtime.
    allow_caps: names in any case, with or without CAP_, or `all`.
    allow_devices, allow_registries, allow_snapshotters, allow_sysctls: globs.
    volumes: False allows only sources in the allocation's directory.
    volume_paths: globs of the node's paths; empty: every path.
    volume_label: Docker's `z` or `Z` for mounts without either; not a limit.
    pid_modes, ipc_modes, uts_modes, cgroup_modes, network_modes: globs of modes that count without
        allow_privileged; network_modes for the networks of other allocations.
    allow_memory_hard_limit: False refuses a limit above the memory that Nomad has planned.
    allow_annotations: globs of a job's annotations.
    exec_options: options before a command in a task, see `actors.exec.options`.
    pids_limit: limit of tasks without their own limit, and the highest limit; 0 is no limit.
    allow_known_holes: False refuses tasks on a node whose runtime or containerd has a known hole by
        which tasks become root.
    default_seccomp: True filters tasks that are not privileged by the default profile.
    default_apparmor: profile of tasks that are not privileged; empty for none.
    allow_unconfined: False holds jobs to the two defaults, unless they name another profile.
    allow_apparmor: globs of profiles that jobs may name.
    """

    allow_privileged: bool = True
    allow_runtimes: tuple[str, ...] = ()
    allow_caps: tuple[str, ...] | None = None
    allow_devices: tuple[str, ...] | None = None
    allow_host_network: bool = True
    allow_registries: tuple[str, ...] | None = None
    allow_snapshotters: tuple[str, ...] | None = None
    allow_sysctls: tuple[str, ...] | None = None
    volumes: bool = True
    volume_paths: tuple[str, ...] = ()
    volume_label: str = ""
    pid_modes: tuple[str, ...] = ()
    ipc_modes: tuple[str, ...] = ()
    uts_modes: tuple[str, ...] = ()
    cgroup_modes: tuple[str, ...] = ()
    network_modes: tuple[str, ...] = ()
    allow_memory_hard_limit: bool = True
    pids_limit: int = 0
    no_new_privileges: bool = False
    exec_options: tuple[str, ...] = ()
    allow_annotations: tuple[str, ...] = ()
    allow_known_holes: bool = True
    default_seccomp: bool = False
    default_apparmor: str = ""
    allow_unconfined: bool = True
    allow_apparmor: tuple[str, ...] | None = None

    def open(self) -> tuple[str, ...]:
        """Returns the options of the plugin block that limit no job."""
        state = {
            "allow_privileged": self.allow_privileged,
            "volumes": self.volumes and not self.volume_paths,
            "allow_caps": self.allow_caps is None,
            "allow_devices": self.allow_devices is None,
            "allow_host_network": self.allow_host_network,
            "allow_memory_hard_limit": self.allow_memory_hard_limit,
            "allow_registries": self.allow_registries is None,
            "allow_snapshotters": self.allow_snapshotters is None,
            "allow_sysctls": self.allow_sysctls is None,
            "pids_limit": self.pids_limit == 0,
            "no_new_privileges": not self.no_new_privileges,
            "exec_options": "root" in self.exec_options,
            "allow_known_holes": self.allow_known_holes,
            "default_seccomp": not self.default_seccomp,
            "default_apparmor": not self.default_apparmor,
            "allow_unconfined": self.allow_unconfined,
            "allow_apparmor": self.allow_apparmor is None,
        }
        return tuple(name for name, is_open in state.items() if is_open)


OPEN = Gates()
"""The gates of a plugin block without a gate."""

HARDENED = Gates(
    allow_privileged=False,
    allow_caps=NOMAD_CAPABILITIES,
    allow_devices=(),
    allow_host_network=False,
    allow_memory_hard_limit=False,
    allow_sysctls=(),
    volumes=False,
    pids_limit=4096,
    no_new_privileges=True,
    allow_known_holes=False,
    default_seccomp=True,
    default_apparmor=apparmor.NAME,
    allow_unconfined=False,
    allow_apparmor=(),
)
"""The gates of `hardened = true`."""


def unknown_capabilities(names: Iterable[str]) -> list[str]:
    """Returns the names that no capability has."""
    unknown: list[str] = []
    for name in names:
        try:
            capabilities.canonical(name, capabilities.NAMES, "allow_caps")
        except DriverError:
            unknown.append(name)
    return unknown
