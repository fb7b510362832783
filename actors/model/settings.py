"""Validated options: of the driver (the agent's plugin block) and of one task (the job's config).

`plugin.options` has the table that checks and fills these classes. Product code creates them only
there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from actors.model.gates import Gates
from containerd.image.health_check import (
    COMMAND,
    EVENT,
    LEAST_S,
    NONE,
    RESTART,
    SHELL,
    HealthCheck,
)
from containerd.security.selinux import DISABLE as SELINUX_DISABLE
from containerd.security.selinux import PARTS as SELINUX_PARTS
from containerd.spec.mounts import MountOption
from proto.values import dataclass

__all__ = [
    "COMMAND",
    "EVENT",
    "LEAST_S",
    "NONE",
    "RESTART",
    "SELINUX_DISABLE",
    "SELINUX_PARTS",
    "SHELL",
    "Auth",
    "DeviceOption",
    "DriverSettings",
    "HealthCheck",
    "LogOptions",
    "MountOption",
    "SecurityOptions",
    "TaskOptions",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """Credentials of a registry: server_address, or the image's own registry where empty."""

    username: str
    password: str = field(repr=False)
    server_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSettings:
    """Options of the driver.

    stats_interval_s: 0 leaves the interval to Nomad.
    containerd_namespace: empty means `nomad`, or `nomad.slice` on a node with cgroup v2.
    total_mhz, cores: the node as Nomad sees the node, for the ticks of TaskStats.
    log_buffer_bytes: bytes that a log FIFO and its worker hold while no process reads the FIFO.
        Then the oldest bytes are dropped, or without log_drops the task waits.
    log_collection: `nomad` or `driver`: the program that writes the log files.
    shim_per: `task` or `alloc`: the containers that share one shim.
    network_creation: `nomad` or `driver`: the program that creates an allocation's network.
    log_max_files, log_max_file_bytes: limits for each stream, where the driver writes the files.
    default_ulimits: like a task's ulimits, which win by name.
    auth_config: path of a Docker config.json.
    auth_helper: the end of the program's name `docker-credential-…`.
    logging: of tasks without a `logging` block, where the driver collects logs.
    dns_servers: instead of the servers in the node's resolv.conf; empty: those.
    extra_labels: globs of names in `ownership.EXTRA_LABELS`.
    warnings: sentences on options of other drivers that have no effect here.
    image_healthchecks: True runs the health check of an image for jobs without an own check.
    gates: limits for all jobs; `namespace_gates` wins for jobs of a namespace of Nomad.
    """

    enabled: bool = True
    containerd_runtime: str = "io.containerd.runc.v2"
    stats_interval_s: float = 1.0
    seccomp_profile_dir: str = "/opt/seccomp"
    auth: Auth | None = None
    auth_config: str = ""
    auth_helper: str = ""
    registry_config_path: str = "/etc/containerd/certs.d"
    snapshotter: str = ""
    image_pull_timeout_s: float = 300.0
    pull_activity_timeout_s: float = 30.0
    image_gc: bool = True
    image_gc_delay_s: float = 3600.0
    gc_dangling: bool = True
    gc_dangling_period_s: float = 300.0
    gc_dangling_grace_s: float = 300.0
    gc_dangling_dry_run: bool = False
    log_buffer_bytes: int = 16 << 20
    log_drops: bool = True
    log_collection: str = "nomad"
    log_max_files: int = 10
    log_max_file_bytes: int = 10 << 20
    logging: LogOptions | None = None
    extra_labels: tuple[str, ...] = ()
    dns_servers: tuple[str, ...] = ()
    shim_per: str = "task"
    network_creation: str = "nomad"
    selinux_enabled: bool = False
    init_path: str = ""
    image_healthchecks: bool = False
    default_ulimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    oom_score_adj: int = 0
    cdi_spec_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    containerd_address: str = "/run/containerd/containerd.sock"
    containerd_namespace: str = ""
    state_dir: str = "/run/nomad-driver-containerd"
    total_mhz: int = 0
    cores: int = 0
    gates: Gates = field(default_factory=Gates)
    namespace_gates: Mapping[str, Gates] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def every_gates(self) -> tuple[Gates, ...]:
        """Returns the gates of the node, and of each namespace of Nomad with gates of its own."""
        return self.gates, *self.namespace_gates.values()

    def gates_of(self, namespace: str) -> Gates:
        """Returns the gates for the jobs of a namespace of Nomad."""
        return self.namespace_gates.get(namespace or "default", self.gates)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOption:
    """A device of the node, or a directory of devices. cgroup_permissions is a subset of rwm."""

    host_path: str
    container_path: str = ""
    cgroup_permissions: str = "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """A task's `logging` block.

    type: `files`, `journald` or `none`.
    max_files, max_file_bytes: 0 leaves the number to the driver.
    tag: Docker's template of the tag; empty: the task's name.
    """

    type: str
    max_files: int = 0
    max_file_bytes: int = 0
    tag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityOptions:
    """A task's `security_opt`. An empty word and None stand for an absent item.

    seccomp: `unconfined`, `builtin`, or the path of a profile.
    apparmor: `unconfined`, or the name of a profile.
    labels: SELinux options as in `selinux_opts`.
    system_paths: True shows the paths of /proc and /sys that are hidden or read-only otherwise.
    writable_cgroups: True makes the task's cgroup writable for the task.
    """

    no_new_privileges: bool | None = None
    seccomp: str = ""
    apparmor: str = ""
    labels: tuple[str, ...] = ()
    system_paths: bool = False
    writable_cgroups: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """The job's `config` block. None means "not set" where an empty value has another meaning.

    pids_limit: 0 or less is no limit.
    memory_hard_limit_mb, memory_reservation_bytes, memory_swap_bytes: 0 is not set. The swap counts
        memory too, as in Docker.
    cpuset_cpus, cpuset_mems: lists such as `0-2,5`; empty: all that the node grants.
    umask: None is the runtime's.
    cgroupns: empty or `host`.
    shm_size_bytes: 0 is the default size.
    blkio_weight: 10 to 1000; 0 is the kernel's.
    device_rates: (kind, path of a disk, limit in a second); the kinds are those of Rate.
    storage_bytes: most bytes of the files that the task writes outside of its mounts; 0: no limit.
    pid_mode, ipc_mode: empty, `host`, or `task:` with the name of a task of the allocation.
    uts_mode: empty or `host`.
    network_mode: as pid_mode, or `none`, `bridge`, `container:` with an id, `ns:` with a path.
    host_network: True also by network_mode.
    ports: labels that the group's network must have.
    ulimits: (soft, hard) by lower-case name.
    cdi_devices: `vendor/class=name`.
    selinux_opts: `disable`, or `key:value` with a key of `containerd.security.selinux.PARTS`.
    extra_hosts: (name, address); the address can be `host-gateway`.
    warnings: sentences on options of other drivers that have no effect here.
    """

    image: str
    image_pull_timeout_s: float | None = None
    image_pull_policy: str = ""
    force_pull: bool = False
    load: str = ""
    snapshotter: str = ""
    platform: str = ""
    arch: str = ""
    os: str = ""
    variant: str = ""
    auth: Auth | None = None
    auth_soft_fail: bool = False
    command: str = ""
    args: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cwd: str = ""
    group_add: tuple[str, ...] = ()
    umask: int | None = None
    init: bool = False
    stop_signal: str = ""
    tty: bool = False
    interactive: bool = False
    runtime: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    extra_labels: tuple[str, ...] | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    logging: LogOptions | None = None
    healthcheck: HealthCheck | None = None
    cpu_hard_limit: bool = False
    cpu_cfs_period_us: int = 100_000
    pids_limit: int = 0
    memory_hard_limit_mb: int = 0
    memory_reservation_bytes: int = 0
    memory_swap_bytes: int = 0
    memory_swappiness: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    oom_score_adj: int | None = None
    shm_size_bytes: int = 0
    storage_bytes: int = 0
    blkio_weight: int = 0
    device_rates: tuple[tuple[str, str, int], ...] = ()
    ulimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    file_limit: int = 0
    sysctl: Mapping[str, str] = field(default_factory=dict)
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    seccomp: bool = False
    seccomp_profile: str = ""
    apparmor_profile: str = ""
    security_opt: SecurityOptions = field(default_factory=SecurityOptions)
    selinux_opts: tuple[str, ...] = ()
    readonly_rootfs: bool = False
    cgroupns: str = ""
    pid_mode: str = ""
    ipc_mode: str = ""
    uts_mode: str = ""
    hostname: str = ""
    host_network: bool = False
    network_mode: str = ""
    ports: tuple[str, ...] = ()
    host_dns: bool = True
    dns_servers: tuple[str, ...] = ()
    dns_searches: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    advertise_ipv6: bool = False
    extra_hosts: tuple[tuple[str, str], ...] = ()
    devices: tuple[DeviceOption, ...] = ()
    cdi_devices: tuple[str, ...] = ()
    mounts: tuple[MountOption, ...] = ()
    warnings: tuple[str, ...] = ()
