"""Validated options: of the driver (the agent's plugin block) and of one task (the job's config).

`plugin.options` has the table that checks and fills these; nothing else makes them in product code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """Credentials of a registry. server_address binds them; empty means the image's registry."""

    username: str
    password: str = field(repr=False)
    server_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSettings:
    """Options of the driver. stats_interval_s 0 leaves the interval to Nomad.

    containerd_namespace empty means: `nomad`, or `nomad.slice` on a cgroup v2 host.
    total_mhz and cores describe the node as Nomad sees it, for the ticks of TaskStats.
    log_buffer_bytes is what one log FIFO holds while nobody reads it; then the oldest bytes are
    dropped, or without log_drops the task waits.
    default_ulimits are as a task's ulimits, which win by name.
    auth_config is a Docker config.json, auth_helper the end of `docker-credential-…`.
    """

    enabled: bool = True
    containerd_runtime: str = "io.containerd.runc.v2"
    stats_interval_s: float = 1.0
    allow_runtimes: tuple[str, ...] = ()
    allow_privileged: bool = True
    seccomp_profile_dir: str = "/opt/seccomp"
    auth: Auth | None = None
    auth_config: str = ""
    auth_helper: str = ""
    registry_config_path: str = "/etc/containerd/certs.d"
    snapshotter: str = ""
    pull_activity_timeout_s: float = 30.0
    image_gc: bool = True
    image_gc_delay_s: float = 3600.0
    gc_dangling: bool = True
    gc_dangling_period_s: float = 300.0
    gc_dangling_grace_s: float = 300.0
    gc_dangling_dry_run: bool = False
    log_buffer_bytes: int = 16 << 20
    log_drops: bool = True
    init_path: str = ""
    default_ulimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    cdi_spec_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    containerd_address: str = "/run/containerd/containerd.sock"
    containerd_namespace: str = ""
    state_dir: str = "/run/nomad-driver-containerd"
    total_mhz: int = 0
    cores: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOption:
    """A device of the host, or of a directory there. cgroup_permissions is a subset of rwm."""

    host_path: str
    container_path: str = ""
    cgroup_permissions: str = "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOption:
    """One mount as the job wrote it: fstab options, or Docker's fields, where the rest is empty."""

    target: str
    type: str = "volume"
    source: str = ""
    options: tuple[str, ...] = ()
    readonly: bool = False
    propagation: str = ""
    tmpfs_size_bytes: int = 0
    tmpfs_mode: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """The job's `config` block. None stands for "not given" where that differs from empty.

    pids_limit of 0 or less is no limit, shm_size_bytes 0 the default size. The modes are empty or
    `host`. ulimits are (soft, hard) by lower-case name. cdi_devices are `vendor/class=name`.
    extra_hosts are (name, address), where the address may be `host-gateway`.
    """

    image: str
    image_pull_timeout_s: float = 300.0
    image_pull_policy: str = ""
    force_pull: bool = False
    load: str = ""
    snapshotter: str = ""
    auth: Auth | None = None
    auth_soft_fail: bool = False
    command: str = ""
    args: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cwd: str = ""
    group_add: tuple[str, ...] = ()
    init: bool = False
    stop_signal: str = ""
    runtime: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    cpu_hard_limit: bool = False
    cpu_cfs_period_us: int = 100_000
    pids_limit: int = 0
    oom_score_adj: int = 0
    shm_size_bytes: int = 0
    ulimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    sysctl: Mapping[str, str] = field(default_factory=dict)
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    seccomp: bool = False
    seccomp_profile: str = ""
    apparmor_profile: str = ""
    readonly_rootfs: bool = False
    pid_mode: str = ""
    ipc_mode: str = ""
    uts_mode: str = ""
    hostname: str = ""
    host_network: bool = False
    host_dns: bool = True
    extra_hosts: tuple[tuple[str, str], ...] = ()
    devices: tuple[DeviceOption, ...] = ()
    cdi_devices: tuple[str, ...] = ()
    mounts: tuple[MountOption, ...] = ()
